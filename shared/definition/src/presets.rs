//! Workflows that are there from the start; whoever stores one of the same name gets that one.

use hopyard_contract::Name;

const PRESETS: [(&str, &str); 3] = [
    ("builder", include_str!("../presets/builder.yaml")),
    ("guardian", include_str!("../presets/guardian.yaml")),
    ("surgeon", include_str!("../presets/surgeon.yaml")),
];

/// The definition of the preset with this name.
pub fn preset(name: &Name) -> Option<&'static str> {
    PRESETS.iter().find(|(known, _)| *known == name.as_str()).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_a_definition_of_its_name() {
        for (name, text) in PRESETS {
            let definition = crate::parse(text, Some(name)).unwrap_or_else(|errors| panic!("{name}: {errors:#?}"));
            assert_eq!(definition.plan.name.as_str(), name);
            assert_eq!(preset(&definition.plan.name), Some(text));
        }
        assert_eq!(preset(&Name::literal("other")), None);
    }
}
