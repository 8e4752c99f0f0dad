//! Subject mappings of an account: where a message really goes.

use hw_subject::{Filter, Transform, is_valid_filter};

use crate::rewrite::numbered;
use crate::sharing::{MappingError, MappingSpec};

/// The mappings of one account, in their order.
#[derive(Debug, Default)]
pub struct Mappings(Vec<Mapping>);

#[derive(Debug)]
struct Mapping {
    source: Filter,
    /// With the sum of the weights so far: the first that is above the draw is it.
    destinations: Vec<(u8, Transform)>,
}

/// What became of a subject.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Mapped {
    /// No mapping is for it.
    Same,
    /// It goes here.
    To(Vec<u8>),
    /// It goes nowhere.
    Dropped,
}

impl Mappings {
    /// Checks every mapping.
    pub fn new(specs: &[MappingSpec]) -> Result<Mappings, (String, MappingError)> {
        let mut mappings: Vec<Mapping> = vec![];
        for spec in specs {
            let mapping = Mapping::new(spec).map_err(|error| (spec.source.clone(), error))?;
            match mappings.iter_mut().find(|known| known.source == mapping.source) {
                Some(known) => *known = mapping,
                None => mappings.push(mapping),
            }
        }
        Ok(Mappings(mappings))
    }

    /// Whether no subject is mapped.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where a message on this subject goes; `draw` is the randomness for weights and functions.
    pub fn apply(&self, subject: &[u8], draw: u64) -> Mapped {
        let Some(mapping) = self.0.iter().find(|mapping| mapping.source.matches(subject)) else {
            return Mapped::Same;
        };
        let share = (draw % 100) as u8;
        let chosen = mapping.destinations.iter().find(|(upto, _)| share < *upto);
        match chosen.and_then(|(_, transform)| transform.apply(subject, draw / 100)) {
            Some(to) if !to.is_empty() => Mapped::To(to),
            _ => Mapped::Dropped,
        }
    }
}

impl Mapping {
    fn new(spec: &MappingSpec) -> Result<Mapping, MappingError> {
        if !is_valid_filter(spec.source.as_bytes()) {
            return Err(MappingError::BadSubject);
        }
        let source = Filter::parse(&spec.source).map_err(|_| MappingError::BadSubject)?;
        let (mut destinations, mut sum) = (vec![], 0u8);
        let mut seen: Vec<&str> = vec![];
        for (to, weight) in &spec.destinations {
            if seen.contains(&to.as_str()) {
                return Err(MappingError::Duplicate { to: to.clone() });
            }
            seen.push(to);
            sum = sum.saturating_add(*weight);
            if sum > 100 {
                return Err(MappingError::Total);
            }
            destinations.push((sum, Transform::new(&spec.source, to)?));
        }
        if sum < 100 && !seen.contains(&spec.source.as_str()) {
            destinations.push((100, Transform::new(&spec.source, numbered(&spec.source))?));
        }
        Ok(Mapping { source, destinations })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings(source: &str, destinations: &[(&str, u8)]) -> Result<Mappings, MappingError> {
        let destinations = destinations.iter().map(|(to, weight)| ((*to).to_owned(), *weight)).collect();
        Mappings::new(&[MappingSpec { source: source.into(), destinations }]).map_err(|(_, error)| error)
    }

    #[test]
    fn weights_share_the_messages() {
        let to = |text: &str| Mapped::To(text.as_bytes().to_vec());
        type Case<'a> = (&'a str, &'a [(&'a str, u8)], u64, Mapped);
        let cases: [Case<'_>; 8] = [
            ("a", &[("b", 100)], 99, to("b")),
            ("a", &[("b", 30), ("c", 70)], 29, to("b")),
            ("a", &[("b", 30), ("c", 70)], 30, to("c")),
            // What is missing stays.
            ("a", &[("b", 30)], 30, to("a")),
            // Unless the source is named: then it is lost.
            ("a", &[("b", 30), ("a", 30)], 59, to("a")),
            ("a", &[("b", 30), ("a", 30)], 60, Mapped::Dropped),
            ("x", &[("b", 100)], 0, Mapped::Same),
            ("a", &[("", 100)], 0, to("a")),
        ];
        for (source, destinations, draw, want) in cases {
            let got = mappings(source, destinations).map(|mappings| mappings.apply(b"a", draw));
            assert_eq!(got, Ok(want), "{source} {destinations:?} {draw}");
        }
        let stays = mappings("a.*.*", &[("b.$2.$1", 50)]).map(|mappings| mappings.apply(b"a.x.y", 80));
        assert_eq!(stays, Ok(to("a.x.y")));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(
            mappings("a", &[("b", 1), ("b", 2)]).err(),
            Some(MappingError::Duplicate { to: "b".into() })
        );
        assert_eq!(mappings("a", &[("b", 60), ("c", 60)]).err(), Some(MappingError::Total));
        assert_eq!(mappings("a..b", &[("b", 100)]).err(), Some(MappingError::BadSubject));
        assert!(matches!(mappings("a", &[("$1", 100)]), Err(MappingError::Transform(_))));
    }
}
