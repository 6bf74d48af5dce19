//! gRPC's status names, as resources write them.

/// By number.
const STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The number of a status; `None` when there is no status of that name.
pub fn status_number(name: &str) -> Option<u32> {
    STATUSES.iter().position(|known| *known == name).map(|number| number as u32)
}

#[cfg(test)]
mod tests {
    use super::status_number;

    #[test]
    fn numbers_are_grpcs() {
        for (name, number) in [("OK", Some(0)), ("UNAVAILABLE", Some(14)), ("UNAUTHENTICATED", Some(16)), ("ok", None)]
        {
            assert_eq!(status_number(name), number, "{name}");
        }
    }
}
