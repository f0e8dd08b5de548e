//! Names of workspaces: which run, which of its generations, and which variant of a step.

use std::fmt;
use std::str::FromStr;

use super::{Name, RunId};

/// A directory that steps work in: `<run>-g<k>`, or `<run>-g<k>_<variant>` for one that a variant has to itself.
///
/// It is the name of the directory, of its entry in the mirror and of its row in the inventory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkspaceId {
    /// The run that made it.
    pub run: RunId,
    /// Number of the workspace within the run, from 1.
    pub generation: u32,
    /// The variant that has it to itself, by its step.
    pub variant: Option<Name>,
}

/// Why a text is no [`WorkspaceId`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a workspace: they are called <run>-g<number>, or <run>-g<number>_<variant>")]
pub struct NotAWorkspace;

impl fmt::Display for WorkspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-g{}", self.run, self.generation)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "_{variant}"))
    }
}

impl FromStr for WorkspaceId {
    type Err = NotAWorkspace;

    fn from_str(text: &str) -> Result<Self, NotAWorkspace> {
        // No run and no number has an underscore.
        let (whole, variant) = text.split_once('_').map_or((text, None), |(whole, variant)| (whole, Some(variant)));
        let (run, generation) = whole.rsplit_once("-g").ok_or(NotAWorkspace)?;
        let plain = !generation.is_empty() && generation.len() <= 9 && generation.bytes().all(|b| b.is_ascii_digit());
        let variant = variant.map(|name| name.parse().map_err(|_| NotAWorkspace)).transpose()?;
        let run = run.parse().map_err(|_| NotAWorkspace)?;
        let generation = generation.parse().ok().filter(|_| plain).ok_or(NotAWorkspace)?;
        Ok(Self { run, generation, variant })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "019ab3c0-1111-7abc-8def-0123456789ab";

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for tail in ["-g1", "-g12", "-g1_fix-a", "-g3_a_b", "-g1_x-g2"] {
            let text = format!("{RUN}{tail}");
            assert_eq!(text.parse::<WorkspaceId>().unwrap().to_string(), text);
        }
        let of_variant: WorkspaceId = format!("{RUN}-g2_my-good").parse().unwrap();
        assert_eq!((of_variant.generation, of_variant.variant), (2, Some(Name::literal("my-good"))));
    }

    #[test]
    fn what_is_no_name_is_none() {
        for text in [
            "",
            "-g1",
            RUN,
            "x-g1",
            &format!("{RUN}-g"),
            &format!("{RUN}-gx"),
            &format!("{RUN}-g1_"),
            &format!("{RUN}-g1_-a"),
            &format!("{RUN}-g-1"),
            &format!("{RUN}-g0123456789"),
            &format!("{RUN}.json"),
        ] {
            assert_eq!(text.parse::<WorkspaceId>(), Err(NotAWorkspace), "{text}");
        }
    }
}
