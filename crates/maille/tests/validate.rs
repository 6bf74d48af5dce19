//! `maille validate` on files and on what they do wrong: what it prints is kept in `tests/validate/`, one folder a case.
//!
//! A case is a folder of files, `args` (the arguments, one a line) and `expected`: the exit code and the text. To write
//! down what is printed now, run with UPDATE_EXPECT=1 and read the difference.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn findings_read_as_they_are_written_down() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/validate");
    let (mut count, mut wrong) = (0, Vec::new());
    for case in fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()) {
        let args = fs::read_to_string(case.join("args")).unwrap();
        let stdin = fs::File::open(case.join("stdin")).map_or_else(|_| std::process::Stdio::null(), Into::into);
        let output = Command::new(env!("CARGO_BIN_EXE_maille"))
            .arg("validate")
            .args(args.lines())
            .current_dir(&case)
            .stdin(stdin)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let found = format!("exit code {}\n{}", output.status.code().unwrap(), String::from_utf8_lossy(&said));
        count += 1;
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(case.join("expected"), found).unwrap();
        } else if fs::read_to_string(case.join("expected")).unwrap_or_default() != found {
            wrong.push(format!("{}\n{found}", case.display()));
        }
    }
    assert!(count >= 6, "only {count} cases were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
