//! Writes the JSON Schemas of the contract to `schemas/`, where other languages find them.

use std::path::Path;

use hopyard_contract::schema;

fn main() -> std::io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    std::fs::create_dir_all(&directory)?;
    for entry in std::fs::read_dir(&directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "json") {
            std::fs::remove_file(path)?;
        }
    }
    for (name, schema) in schema::all() {
        std::fs::write(directory.join(format!("{name}.json")), schema::file(&schema))?;
    }
    Ok(())
}
