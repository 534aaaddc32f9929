//! Owns how each provider of the registry is asked. Refuses to ask it.

use cronvec_nouns::space::ProviderKind;

use super::in_process::InProcess;
use super::wire::Wire;

/// How a provider is asked.
#[derive(Clone, Copy)]
pub enum Asked {
    /// In its wire format.
    Http(&'static dyn Wire),
    /// In this process; none where its model isn't compiled in.
    InProcess(Option<&'static dyn InProcess>),
}

/// Each line of the registry is a module of this folder, with `ASKED` in it.
macro_rules! asked {
    ($($kind:ident => $file:ident,)+) => {
        $(mod $file;)+

        pub fn asked(kind: ProviderKind) -> Asked {
            match kind {
                $(ProviderKind::$kind => $file::ASKED,)+
            }
        }
    };
}

cronvec_nouns::providers!(asked);

/// The wire format of a provider; none where nothing is sent.
pub fn wire(kind: ProviderKind) -> Option<&'static dyn Wire> {
    match asked(kind) {
        Asked::Http(wire) => Some(wire),
        Asked::InProcess(_) => None,
    }
}
