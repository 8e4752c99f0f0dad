//! The body of a pull request (`CONSUMER.MSG.NEXT`): empty, a number, or JSON.

use hw_stream::lead::PullRequest;

use crate::request::read_json;

/// Reads a pull request; the error is the text after `400 Bad Request - `.
pub fn pull_request(body: &[u8]) -> Result<PullRequest, String> {
    let text = body.trim_ascii();
    if text.is_empty() {
        return Ok(PullRequest::default());
    }
    if text[0] == b'{' {
        return read_json(text);
    }
    let batch = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    batch
        .map(PullRequest::of)
        .ok_or_else(|| format!("invalid batch size {:?}", String::from_utf8_lossy(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_what_is_left_out() {
        let wanted = pull_request(br#"{"batch":3}"#);
        assert_eq!(wanted.as_ref().map(|request| request.batch), Ok(3));
        assert_eq!(pull_request(br#"{"batch":3,"expires":null,"max_bytes":null}"#), wanted);
        assert_eq!(pull_request(b"3"), wanted);
        assert!(pull_request(br#"{"batch":"3"}"#).is_err());
    }
}
