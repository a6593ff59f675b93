//! What a processor is called: x86 has its name in itself, ARM boards have theirs in many places.

/// Cores by implementer and part, as in the MIDR register. Source: the part numbers of ARM's technical reference manuals.
const ARM_CORES: [(u32, u32, &str); 30] = [
    (0x41, 0xB76, "ARM1176"),
    (0x41, 0xC07, "Cortex-A7"),
    (0x41, 0xC08, "Cortex-A8"),
    (0x41, 0xC09, "Cortex-A9"),
    (0x41, 0xC0E, "Cortex-A17"),
    (0x41, 0xC0F, "Cortex-A15"),
    (0x41, 0xD03, "Cortex-A53"),
    (0x41, 0xD04, "Cortex-A35"),
    (0x41, 0xD05, "Cortex-A55"),
    (0x41, 0xD07, "Cortex-A57"),
    (0x41, 0xD08, "Cortex-A72"),
    (0x41, 0xD09, "Cortex-A73"),
    (0x41, 0xD0A, "Cortex-A75"),
    (0x41, 0xD0B, "Cortex-A76"),
    (0x41, 0xD0C, "Neoverse-N1"),
    (0x41, 0xD0D, "Cortex-A77"),
    (0x41, 0xD40, "Neoverse-V1"),
    (0x41, 0xD41, "Cortex-A78"),
    (0x41, 0xD44, "Cortex-X1"),
    (0x41, 0xD46, "Cortex-A510"),
    (0x41, 0xD47, "Cortex-A710"),
    (0x41, 0xD48, "Cortex-X2"),
    (0x41, 0xD49, "Neoverse-N2"),
    (0x41, 0xD4D, "Cortex-A715"),
    (0x41, 0xD4E, "Cortex-X3"),
    (0x41, 0xD4F, "Neoverse-V2"),
    (0x41, 0xD80, "Cortex-A520"),
    (0x41, 0xD81, "Cortex-A720"),
    (0x51, 0x001, "Oryon"),
    (0xC0, 0xAC3, "Ampere-1"),
];

/// The name of this machine's processor, with the board's where there is one.
#[cfg(not(target_os = "macos"))]
pub fn detect() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    describe(&read("/proc/cpuinfo"), &read("/proc/device-tree/model"))
}

/// The name of this machine's processor.
#[cfg(target_os = "macos")]
pub fn detect() -> String {
    super::sysctl::text("machdep.cpu.brand_string").unwrap_or_else(|| describe("", ""))
}

/// The first value of a field of `/proc/cpuinfo`.
pub fn field<'t>(cpuinfo: &'t str, name: &str) -> Option<&'t str> {
    values(cpuinfo, name).next()
}

/// The values of a field, one per processor.
fn values<'t>(cpuinfo: &'t str, name: &str) -> impl Iterator<Item = &'t str> {
    cpuinfo.lines().filter_map(move |line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name && !value.trim().is_empty()).then_some(value.trim())
    })
}

/// A name out of `/proc/cpuinfo` and of the model that the device tree has, if there is one.
fn describe(cpuinfo: &str, device_tree: &str) -> String {
    let cores = arm_cores(cpuinfo);
    if cores.is_empty() {
        let name = ["model name", "cpu model", "uarch", "cpu"].iter().find_map(|name| field(cpuinfo, name));
        return name.map_or_else(|| format!("{} processor", std::env::consts::ARCH), str::to_owned);
    }
    let device_tree = device_tree.trim_end_matches('\0').trim();
    let board = field(cpuinfo, "Model").or((!device_tree.is_empty()).then_some(device_tree));
    match board.or_else(|| field(cpuinfo, "Hardware")) {
        Some(board) => format!("{board}, {cores}"),
        None => cores,
    }
}

/// The different cores of an ARM processor, `Cortex-A55 + Cortex-A76`; empty for others.
fn arm_cores(cpuinfo: &str) -> String {
    let number = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let implementers = values(cpuinfo, "CPU implementer").filter_map(number);
    let mut names: Vec<String> = Vec::new();
    for (implementer, part) in implementers.zip(values(cpuinfo, "CPU part").filter_map(number)) {
        let known = ARM_CORES.iter().find(|core| (core.0, core.1) == (implementer, part));
        let name = known.map_or_else(
            || format!("ARM core {part:#05x} of implementer {implementer:#04x}"),
            |(_, _, name)| (*name).to_owned(),
        );
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(" + ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x86_tells_its_name() {
        let cpuinfo = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 94\nmodel name\t: Intel(R) Core(TM) i7\n";
        assert_eq!(describe(cpuinfo, ""), "Intel(R) Core(TM) i7");
    }

    #[test]
    fn an_arm_board_is_named_with_its_cores() {
        let core = |part| format!("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n");
        let pi = core("0xd0b").repeat(4) + "Revision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n";
        assert_eq!(describe(&pi, "not asked\0"), "Raspberry Pi 5 Model B Rev 1.0, Cortex-A76");
        let mixed = core("0xd05") + &core("0xd0b");
        assert_eq!(describe(&mixed, "Some board\0"), "Some board, Cortex-A55 + Cortex-A76");
        assert_eq!(describe(&mixed, ""), "Cortex-A55 + Cortex-A76");
        let old = core("0xc07") + "Hardware\t: BCM2835\n";
        assert_eq!(describe(&old, ""), "BCM2835, Cortex-A7");
        assert_eq!(describe(&core("0xabc"), ""), "ARM core 0xabc of implementer 0x41");
    }

    #[test]
    fn a_processor_that_says_nothing_is_named_by_its_architecture() {
        assert_eq!(describe("", ""), format!("{} processor", std::env::consts::ARCH));
        assert_eq!(describe("model name\t:\n", ""), format!("{} processor", std::env::consts::ARCH));
    }
}
