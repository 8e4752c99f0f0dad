//! The content of one message: subject, header block and payload in one shared buffer.

use bytes::Bytes;

/// Subject, header block and payload of a message, in one shared buffer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    bytes: Bytes,
    subject_len: u16,
    header_len: u32,
}

impl Record {
    /// Joins the parts; None when the subject is longer than 65,535 bytes or the header than 4 GiB.
    pub fn join(subject: &[u8], header: &[u8], payload: &[u8]) -> Option<Record> {
        let (subject_len, header_len) =
            (u16::try_from(subject.len()).ok()?, u32::try_from(header.len()).ok()?);
        let mut bytes = Vec::with_capacity(subject.len() + header.len() + payload.len());
        bytes.extend_from_slice(subject);
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(payload);
        Some(Record { bytes: bytes.into(), subject_len, header_len })
    }

    /// Wraps bytes that are already joined; None when the lengths do not fit.
    pub fn from_joined(bytes: Bytes, subject_len: u16, header_len: u32) -> Option<Record> {
        (usize::from(subject_len) + header_len as usize <= bytes.len()).then_some(Record {
            bytes,
            subject_len,
            header_len,
        })
    }

    /// All three parts in a row.
    pub fn joined(&self) -> &Bytes {
        &self.bytes
    }

    /// The lengths of subject and header.
    pub fn lengths(&self) -> (u16, u32) {
        (self.subject_len, self.header_len)
    }

    /// The subject.
    pub fn subject(&self) -> &[u8] {
        &self.bytes[..usize::from(self.subject_len)]
    }

    /// The header block, empty when there is none.
    pub fn header(&self) -> &[u8] {
        &self.bytes[usize::from(self.subject_len)..self.payload_start()]
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_start()..]
    }

    /// The payload, sharing the buffer.
    pub fn shared_payload(&self) -> Bytes {
        self.bytes.slice(self.payload_start()..)
    }

    /// A copy that keeps nothing else in memory.
    pub fn detached(&self) -> Record {
        Record { bytes: Bytes::copy_from_slice(&self.bytes), ..*self }
    }

    fn payload_start(&self) -> usize {
        usize::from(self.subject_len) + self.header_len as usize
    }
}
