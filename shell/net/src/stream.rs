//! Any other byte stream (TLS, websocket, in-process): one task that reads, and writes when the shard has output.

use std::rc::Rc;
use std::time::Duration;

use hw_hub::CloseReason;
use hw_kit::ConnId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

use crate::Driver;
use crate::limits::READ_BYTES;
use crate::mailbox::Duplex;

/// Serves a connection until it ends.
pub(crate) async fn serve(driver: Rc<Driver>, conn: ConnId, socket: Box<dyn Duplex>, output: Rc<Notify>) {
    let (reader, mut writer) = tokio::io::split(socket);
    // Both at once: a client that does not read must not keep the server from reading what it sends, or from noticing
    // that it went.
    let reason = tokio::select! {
        reason = read(&driver, conn, reader) => reason,
        reason = write(&driver, conn, &mut writer, &output) => reason,
    };
    if reason.flushes() {
        let deadline = write_deadline(&driver);
        let _ = tokio::time::timeout(deadline, writer.shutdown()).await;
    }
    driver.closed(conn, reason);
}

async fn read(driver: &Rc<Driver>, conn: ConnId, mut reader: impl AsyncRead + Unpin) -> CloseReason {
    let mut kept: Vec<u8> = Vec::new();
    loop {
        driver.may_read().await;
        driver.unstalled(conn).await;
        kept.reserve(READ_BYTES);
        match reader.read_buf(&mut kept).await {
            Ok(0) => return CloseReason::ClientClosed,
            Err(_) => return CloseReason::ReadError,
            Ok(_) => {}
        }
        let mut state = driver.state.borrow_mut();
        let state = &mut *state;
        let now = state.now();
        let consumed = state.shard.handle_bytes(now, conn, &kept);
        kept.drain(..consumed);
        driver.end_round();
    }
}

async fn write(
    driver: &Rc<Driver>,
    conn: ConnId,
    writer: &mut (impl AsyncWrite + Unpin),
    output: &Notify,
) -> CloseReason {
    let deadline = write_deadline(driver);
    loop {
        output.notified().await;
        let bytes = driver.state.borrow_mut().take_output(conn);
        driver.state.borrow_mut().shard.set_in_flight(conn, bytes.len());
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match tokio::time::timeout(deadline, writer.write(rest)).await {
                Ok(Ok(0)) | Ok(Err(_)) => return CloseReason::WriteError,
                Ok(Ok(count)) => rest = &rest[count..],
                Err(_) => return CloseReason::SlowConsumerWriteDeadline,
            }
        }
        match tokio::time::timeout(deadline, writer.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return CloseReason::WriteError,
            Err(_) => return CloseReason::SlowConsumerWriteDeadline,
        }
        let is_leaving = {
            let mut state = driver.state.borrow_mut();
            state.shard.set_in_flight(conn, 0);
            driver.end_round();
            state.keep(bytes);
            if let Some(reason) = state.shard.closing(conn) {
                return reason;
            }
            state.shard.is_leaving(conn)
        };
        if is_leaving {
            break;
        }
    }
    // The client sees that, and closes: what it has sent until then is read.
    let _ = tokio::time::timeout(deadline, writer.shutdown()).await;
    loop {
        output.notified().await;
        if let Some(reason) = driver.state.borrow().shard.closing(conn) {
            return reason;
        }
    }
}

fn write_deadline(driver: &Driver) -> Duration {
    Duration::from_nanos(driver.config.write_deadline.0.max(1).unsigned_abs())
}
