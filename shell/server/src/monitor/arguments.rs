//! What a page may be asked: flags and numbers that are none are refused by name, in the real server's words.

use std::collections::BTreeMap;

/// What a value must be.
#[derive(Clone, Copy)]
enum Kind {
    Flag,
    Int,
    Unsigned,
}

/// The arguments of each page that are not any text.
const OF_PAGES: &[(&str, &[(&str, Kind)])] = &[
    (
        "/connz",
        &[
            ("auth", Kind::Flag),
            ("subs", Kind::Flag),
            ("offset", Kind::Int),
            ("limit", Kind::Int),
            ("cid", Kind::Unsigned),
        ],
    ),
    ("/subsz", &[("subs", Kind::Flag), ("offset", Kind::Int), ("limit", Kind::Int)]),
    (
        "/jsz",
        &[
            ("accounts", Kind::Flag),
            ("streams", Kind::Flag),
            ("consumers", Kind::Flag),
            ("config", Kind::Flag),
            ("leader-only", Kind::Flag),
            ("offset", Kind::Int),
            ("limit", Kind::Int),
            ("raft", Kind::Flag),
            ("stream-leader-only", Kind::Flag),
        ],
    ),
    (
        "/healthz",
        &[
            ("js-enabled", Kind::Flag),
            ("js-enabled-only", Kind::Flag),
            ("js-server-only", Kind::Flag),
            ("js-meta-only", Kind::Flag),
            ("details", Kind::Flag),
        ],
    ),
    ("/accstatz", &[("unused", Kind::Flag)]),
];

/// Refuses the first value that is not what it must be.
pub(crate) fn check(page: &str, arguments: &BTreeMap<String, String>) -> Result<(), String> {
    let known = OF_PAGES.iter().find(|(name, _)| *name == page).map_or(&[][..], |(_, known)| known);
    for (name, kind) in known {
        let Some(value) = arguments.get(*name).filter(|value| !value.is_empty()) else { continue };
        // Subscriptions are shown in two ways.
        let is_right = match kind {
            Kind::Flag => flag(value).is_some() || (*name == "subs" && value == "detail"),
            Kind::Int => value.parse::<i64>().is_ok(),
            Kind::Unsigned => value.parse::<u64>().is_ok(),
        };
        if !is_right {
            let (what, by) = match kind {
                Kind::Flag => ("boolean", "ParseBool"),
                Kind::Int => ("int", "Atoi"),
                Kind::Unsigned => ("uint64", "ParseUint"),
            };
            return Err(format!(
                "Error decoding {what} for '{name}': strconv.{by}: parsing {value:?}: invalid syntax"
            ));
        }
    }
    Ok(())
}

/// What a flag's text says, if it is one.
pub(crate) fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_and_no_flag_is_refused() {
        for (page, name, value, wanted) in [
            ("/connz", "limit", "7", None),
            ("/connz", "limit", "", None),
            ("/connz", "subs", "detail", None),
            ("/connz", "acc", "anything", None),
            ("/varz", "limit", "x", None),
            ("/connz", "limit", "x", Some("int for 'limit': strconv.Atoi: parsing \"x\"")),
            ("/connz", "cid", "-1", Some("uint64 for 'cid': strconv.ParseUint: parsing \"-1\"")),
            (
                "/jsz",
                "streams",
                "detail",
                Some("boolean for 'streams': strconv.ParseBool: parsing \"detail\""),
            ),
            ("/healthz", "details", "yes", Some("boolean for 'details': strconv.ParseBool: parsing \"yes\"")),
        ] {
            let arguments = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let wanted = wanted.map(|text| format!("Error decoding {text}: invalid syntax"));
            assert_eq!(check(page, &arguments).err(), wanted, "{page}?{name}={value}");
        }
    }
}
