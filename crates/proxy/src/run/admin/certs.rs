//! `/certs`: the certificates in use.

use serde_json::{Value, json};

use super::answer::View;

pub(super) fn certs(_view: &View<'_>) -> Value {
    json!({"certificates": []})
}
