//! The body of a pull request (`CONSUMER.MSG.NEXT`): empty, a number, or JSON.

use hw_stream::lead::PullRequest;

use crate::json::from_json;

/// Reads a pull request; the error is the text after `400 Bad Request - `.
pub fn pull_request(body: &[u8]) -> Result<PullRequest, String> {
    let text = body.trim_ascii();
    if text.is_empty() {
        return Ok(PullRequest::default());
    }
    if text[0] == b'{' {
        return from_json(text).map_err(|error| error.to_string());
    }
    let batch = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
    batch
        .map(PullRequest::of)
        .ok_or_else(|| format!("invalid batch size {:?}", String::from_utf8_lossy(text)))
}
