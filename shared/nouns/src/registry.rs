//! Owns the list of providers: a line each, its name in code and its file in the folder beside this one. Refuses to know
//! how one is asked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::definition::Definition;

/// The registry. Adding a provider is a line here, the order is the one in which they are named everywhere. `FILE` is the
/// module of this name beside each registry: here it holds the provider's definition, in `cronvec-provider` how it is asked.
///
/// It hands its lines to the macro `$then`, because `cronvec-provider` makes modules of them as well.
#[macro_export]
macro_rules! providers {
    ($then:ident) => {
        $then! {
            Static => static_model,
            OpenAi => openai,
            Ollama => ollama,
            Gemini => gemini,
        }
    };
}

macro_rules! kinds {
    ($($kind:ident => $file:ident,)+) => {
        $(mod $file;)+

        /// Which provider a space is of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum ProviderKind {
            $($kind,)+
        }

        impl ProviderKind {
            pub const ALL: [Self; [$(Self::$kind),+].len()] = [$(Self::$kind),+];

            /// All that is known of it without asking it.
            pub fn definition(self) -> &'static Definition {
                match self {
                    $(Self::$kind => &$file::PROVIDER,)+
                }
            }
        }
    };
}

providers!(kinds);

impl ProviderKind {
    pub fn as_str(self) -> &'static str {
        self.definition().name
    }
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ProviderKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
            format!(
                "unknown provider '{name}'; known are {}",
                Self::ALL.map(Self::as_str).join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_has_one_name_in_json_in_settings_and_in_its_definition() {
        for kind in ProviderKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
    }

    #[test]
    fn no_variable_is_read_for_two_providers() {
        let servers = ProviderKind::ALL.map(|kind| kind.definition().server.as_ref());
        let mut variables: Vec<&str> = servers.iter().flatten().map(|server| server.url_variable).collect();
        let keys = servers.iter().flatten().filter_map(|server| server.key.as_ref());
        variables.extend(keys.flat_map(|key| [key.variable, key.arn_variable]));
        let all = variables.len();
        variables.sort_unstable();
        variables.dedup();
        assert_eq!(variables.len(), all);
    }
}
