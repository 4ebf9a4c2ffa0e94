//! What would happen to a packet, told by the worker that would get it. Nothing changes.

use hyper::StatusCode;

use super::answer::Complaint;
use super::types::{ExplainAnswer, ExplainRequest};
use crate::control::Asker;

pub(super) async fn explain(asker: &Asker, request: ExplainRequest) -> Result<ExplainAnswer, Complaint> {
    let mark = request.mark.unwrap_or(0);
    let bytes = bytes(request)?;
    let told = asker.ask(move |tables| tables.explain(&bytes, mark)).await?;
    let (worker, explanation) = told.ok_or_else(|| {
        Complaint::new(StatusCode::SERVICE_UNAVAILABLE, "there is no worker that could say: lvsd has no devices")
    })?;
    Ok(ExplainAnswer::of(&explanation, u32::try_from(worker).unwrap_or(u32::MAX)))
}

fn bytes(request: ExplainRequest) -> Result<Vec<u8>, Complaint> {
    match (request.packet, request.hex) {
        (Some(words), None) => lvs_admin::packet(&words).map_err(Complaint::bad),
        (None, Some(digits)) => read_hex(&digits),
        _ => Err(Complaint::bad("say a packet, in words, or hex: one of the two")),
    }
}

/// Hexadecimal digits, with white space anywhere between two.
fn read_hex(text: &str) -> Result<Vec<u8>, Complaint> {
    let wrong = || Complaint::bad(format!("hex is pairs of hexadecimal digits, {LEN_MAX} at most"));
    let digits: Option<Vec<u32>> =
        text.chars().filter(|digit| !digit.is_whitespace()).map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0 && digits.len() / 2 <= LEN_MAX).ok_or_else(wrong)?;
    // Two digits are a byte.
    Ok(digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}

/// RFC 791 §3.1, RFC 8200 §3: a whole packet.
const LEN_MAX: usize = 40 + u16::MAX as usize;
