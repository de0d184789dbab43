//! Checkpoints; the checksum is made right, so that what it guards is reached.
#![no_main]

use l1ra_fuzz::with_files;
use l1ra_train::Checkpoint;
use libfuzzer_sys::fuzz_target;

const MARK: &[u8] = b"\"l1ra_checkpoint\":\"";

fuzz_target!(|input: &[u8]| {
    let input = sealed(input).unwrap_or_else(|| input.to_vec());
    with_files(&[("checkpoint", &input)], |dir| {
        if let Ok(checkpoint) = Checkpoint::read(&dir.join("checkpoint")) {
            for update in &checkpoint.updates {
                let _ = update.plan.ranks();
            }
        }
    });
});

/// The file with the checksum of what it holds.
fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let (_, metadata) = safetensors::SafeTensors::read_metadata(bytes).ok()?;
    let entry = metadata.metadata().as_ref()?.get("l1ra_checkpoint")?;
    let (_, header) = entry.split_once(' ')?;
    let file = safetensors::SafeTensors::deserialize(bytes).ok()?;
    let mut names = file.names();
    names.sort_unstable();
    let mut sum = crc32c::crc32c(header.as_bytes());
    for name in names {
        sum = crc32c::crc32c_append(sum, name.as_bytes());
        sum = crc32c::crc32c_append(sum, file.tensor(name).ok()?.data());
    }
    let at = bytes.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let mut sealed = bytes.to_vec();
    sealed
        .get_mut(at..at + 8)?
        .copy_from_slice(format!("{sum:08x}").as_bytes());
    Some(sealed)
}
