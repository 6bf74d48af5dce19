//! `maille completion`.

use clap_complete::Shell;

use crate::failure::Outcome;
use crate::terminal;

/// Print a script that completes maille's commands and options in your shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  source <(maille completion bash)
  maille completion zsh > \"${fpath[1]}/_maille\"
  maille completion fish > ~/.config/fish/completions/maille.fish")]
pub(crate) struct Args {
    /// The shell to complete in
    shell: Shell,
}

pub(crate) fn run(args: Args, mut command: clap::Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "maille", &mut script);
    terminal::out(String::from_utf8_lossy(&script).trim_end())
}
