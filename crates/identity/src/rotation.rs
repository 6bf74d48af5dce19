//! Moving to a new root while everybody goes on talking to everybody: distribute, re-issue, retire.
//!
//! ```text
//! Steady ─begin─► Distribute ──────► Reissue ─────────► Retire ──────► Steady
//!                 the old signs,     the new signs,     the new alone
//!                 both are believed  both are believed  is believed
//! ```
//!
//! A phase ends when everybody who counts has what it was for: at no moment does anybody show a certificate that somebody
//! does not believe. What stands here is what is kept on disk, so that an interrupted rotation goes on where it was.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a rotation is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// There is one root, and that is that.
    #[default]
    Steady,
    /// Everybody learns to believe the new root.
    Distribute,
    /// Everybody gets a certificate that leads to the new root.
    Reissue,
    /// Everybody stops believing the old root.
    Retire,
}

/// A root with its key, both in PEM.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub struct Root {
    /// The certificate.
    pub certificate: String,
    /// The key. Not printed.
    pub key: String,
}

/// The roots of a mesh, and how far a rotation is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Roots {
    /// How far.
    pub phase: Phase,
    /// The root that signs.
    pub signing: Root,
    /// The root that is believed beside it: the next one while it is distributed, the last one after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Root>,
}

/// What somebody has who holds a certificate of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Holding<'a> {
    /// The hash of the roots it believes.
    pub trust: &'a str,
    /// The key that has signed its certificate.
    pub authority: &'a str,
}

/// A rotation is under way already.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a rotation is under way already ({0})")]
pub struct UnderWay(pub Phase);

impl Roots {
    /// One root, and no rotation.
    pub fn steady(signing: Root) -> Self {
        Self { phase: Phase::Steady, signing, beside: None }
    }

    /// Begins a rotation to a new root.
    ///
    /// # Errors
    /// When one is under way.
    pub fn begin(&mut self, new: Root) -> Result<(), UnderWay> {
        if self.phase != Phase::Steady {
            return Err(UnderWay(self.phase));
        }
        self.phase = Phase::Distribute;
        self.beside = Some(new);
        Ok(())
    }

    /// Goes on to the next phase. Whoever calls it knows that nobody is waited for.
    pub fn advance(&mut self) {
        self.phase = match self.phase {
            Phase::Steady => Phase::Steady,
            Phase::Distribute => {
                if let Some(new) = &mut self.beside {
                    std::mem::swap(&mut self.signing, new);
                }
                Phase::Reissue
            }
            Phase::Reissue => {
                self.beside = None;
                Phase::Retire
            }
            Phase::Retire => Phase::Steady,
        };
    }

    /// Every root that is believed now, in PEM; the one that signs comes first.
    pub fn believed(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.signing).chain(&self.beside).map(|root| root.certificate.as_str())
    }

    /// The root that whoever has heard nothing of the rotation believes: the control plane shows itself under it.
    pub fn oldest(&self) -> &Root {
        match (self.phase, &self.beside) {
            (Phase::Reissue, Some(old)) => old,
            _ => &self.signing,
        }
    }
}

impl Phase {
    /// Whether somebody has what this phase is for. `now` is what there is to have: the hash of the roots, and the key that signs.
    pub fn is_done_for(self, holder: Holding<'_>, now: Holding<'_>) -> bool {
        match self {
            Self::Steady => true,
            Self::Distribute | Self::Retire => holder.trust == now.trust,
            Self::Reissue => holder.authority == now.authority,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Steady => "steady",
            Self::Distribute => "distribute",
            Self::Reissue => "re-issue",
            Self::Retire => "retire",
        })
    }
}

/// Says nothing of the key.
impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(name: &str) -> Root {
        Root { certificate: name.to_owned(), key: format!("the key of {name}") }
    }

    #[test]
    fn a_rotation_goes_through_its_phases_and_resumes_in_each() {
        let mut roots = Roots::steady(root("old"));
        let seen = |roots: &Roots| {
            let believed: Vec<&str> = roots.believed().collect();
            (roots.phase, roots.signing.certificate.clone(), believed.join(" "), roots.oldest().certificate.clone())
        };
        let row = |phase, signing: &str, believed: &str, oldest: &str| {
            (phase, signing.to_owned(), believed.to_owned(), oldest.to_owned())
        };
        assert_eq!(seen(&roots), row(Phase::Steady, "old", "old", "old"));
        roots.begin(root("new")).unwrap();
        for expected in [
            row(Phase::Distribute, "old", "old new", "old"),
            row(Phase::Reissue, "new", "new old", "old"),
            row(Phase::Retire, "new", "new", "new"),
        ] {
            assert_eq!(seen(&roots), expected);
            assert_eq!(roots.begin(root("third")), Err(UnderWay(expected.0)));
            // Interrupted, and read back.
            let kept = serde_json::to_string(&roots).unwrap();
            let resumed: Roots = serde_json::from_str(&kept).unwrap();
            assert_eq!(resumed, roots);
            roots = resumed;
            roots.advance();
        }
        assert_eq!(seen(&roots), row(Phase::Steady, "new", "new", "new"));
        roots.advance();
        assert_eq!(roots, Roots::steady(root("new")));
    }

    #[test]
    fn at_no_moment_does_anybody_show_what_somebody_does_not_believe() {
        // Two holders that learn of things at different times; every step is allowed only when the phase says so.
        let mut roots = Roots::steady(root("a"));
        roots.begin(root("b")).unwrap();
        let trust = |roots: &Roots| roots.believed().collect::<Vec<_>>().join(" ");
        let mut holders = [("a".to_owned(), "a".to_owned()), ("a".to_owned(), "a".to_owned())];
        while roots.phase != Phase::Steady {
            for turn in 0..2 {
                let now = (trust(&roots), roots.signing.certificate.clone());
                if turn == 0 {
                    holders[0] = now.clone();
                }
                let done = holders.iter().all(|(trust, authority)| {
                    let now = Holding { trust: &now.0, authority: &now.1 };
                    roots.phase.is_done_for(Holding { trust, authority }, now)
                });
                assert!(done || holders[0] != holders[1], "nobody is waited for who has everything");
                for (_, authority) in &holders {
                    for (trust, _) in &holders {
                        assert!(trust.split(' ').any(|root| root == authority), "{:?}: {holders:?}", roots.phase);
                    }
                }
                holders[1] = holders[0].clone();
            }
            roots.advance();
        }
    }

    #[test]
    fn keys_are_not_printed() {
        assert!(!format!("{:?}", Roots::steady(root("a"))).contains("key of"));
    }
}
