//! Everything that is made from the table is what the table says today.
//!
//! Headers, modules, interfaces, pages and the dispatchers of the test guests come from
//! `hostcalls::TABLE`. They are committed, so that nobody needs this crate to use them. Where one
//! is out of date, this test names it; `UPDATE_GENERATED=1` writes it instead.

mod generate;

use std::path::{Path, PathBuf};

use generate::File;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn is_current(file: &File) -> bool {
    std::fs::read_to_string(root().join(&file.path)).is_ok_and(|text| text == file.text)
}

fn write(file: &File) {
    let path = root().join(&file.path);
    std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("folder");
    std::fs::write(&path, &file.text).expect("write");
}

/// Pages of calls that are no longer in the table.
fn strays(files: &[File]) -> Vec<PathBuf> {
    let Ok(pages) = std::fs::read_dir(root().join("docs/hostcalls")) else {
        return Vec::new();
    };
    let pages = pages.map(|page| page.expect("a page").path());
    pages
        .filter(|page| !files.iter().any(|file| page.ends_with(&file.path)))
        .collect()
}

#[test]
fn generated_files_say_what_the_table_says() {
    let files = generate::files();
    let stale: Vec<&File> = files.iter().filter(|file| !is_current(file)).collect();
    let strays = strays(&files);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        stale.iter().for_each(|file| write(file));
        for page in strays {
            std::fs::remove_file(page).expect("remove");
        }
        return;
    }
    let mut names: Vec<String> = stale.iter().map(|file| file.path.clone()).collect();
    names.extend(
        strays
            .iter()
            .map(|page| format!("{} (no such call)", page.display())),
    );
    assert!(
        names.is_empty(),
        "out of date: {}\nrun: {}",
        names.join(", "),
        generate::COMMAND,
    );
}
