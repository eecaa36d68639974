//! Where the next page of a scan begins: the last key of this one, in letters that addresses take.
//!
//! It names a key and no state, so it does not expire and any gateway understands it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::problem::Problem;

/// Tells cursors from other text, and this form of them from later ones.
const MARK: &[u8] = b"k1";

pub(crate) fn show(last_key: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode([MARK, last_key].concat())
}

/// The key that it stands for.
pub(crate) fn parse(text: &[u8]) -> Result<Vec<u8>, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let key = bytes.as_deref().and_then(|bytes| bytes.strip_prefix(MARK)).map(<[u8]>::to_vec);
    key.ok_or_else(|| Problem::bad_request("bad_cursor", "this is not the cursor of an earlier answer"))
}
