//! Fargate's sizes and what it refuses.

use super::spec::{
    TaskDefinitionSpec,
    task_definition::{NetworkMode, Volume},
};

/// A row of ECS's table of Fargate sizes: CPU units, then memory in MiB.
struct Size {
    cpu: u32,
    least: u32,
    most: u32,
    step: u32,
}

const GIB: u32 = 1024;

const SIZES: &[Size] = &[
    Size { cpu: 256, least: GIB / 2, most: 2 * GIB, step: GIB },
    Size { cpu: 512, least: GIB, most: 4 * GIB, step: GIB },
    Size { cpu: 1024, least: 2 * GIB, most: 8 * GIB, step: GIB },
    Size { cpu: 2048, least: 4 * GIB, most: 16 * GIB, step: GIB },
    Size { cpu: 4096, least: 8 * GIB, most: 30 * GIB, step: GIB },
    Size { cpu: 8192, least: 16 * GIB, most: 60 * GIB, step: 4 * GIB },
    Size { cpu: 16384, least: 32 * GIB, most: 120 * GIB, step: 8 * GIB },
];

impl Size {
    fn fits(&self, memory: u32) -> bool {
        // 512 MiB is the one size of the first row that is no whole GiB.
        memory == self.least || ((self.least..=self.most).contains(&memory) && memory.is_multiple_of(self.step))
    }

    fn memories(&self) -> String {
        match self.cpu {
            256 => "512, 1024 or 2048 MiB".to_owned(),
            _ => format!("{} to {} MiB in steps of {}", self.least, self.most, self.step),
        }
    }
}

/// Why a task definition cannot run with `launchType: FARGATE`: the field, what is wrong, the next step.
pub fn unfit(spec: &TaskDefinitionSpec) -> Option<(&'static str, String, String)> {
    let sizes = || {
        SIZES.iter().fold("the sizes are".to_owned(), |all, size| {
            format!("{all}\ncpu {} with memory {}", size.cpu, size.memories())
        })
    };
    let (cpu, memory) = match (spec.cpu, spec.memory) {
        (Some(cpu), Some(memory)) => (cpu.0, memory.0),
        (None, _) => return Some(("cpu", "Fargate needs a `cpu` for the whole task".to_owned(), sizes())),
        (Some(_), None) => return Some(("memory", "Fargate needs a `memory` for the whole task".to_owned(), sizes())),
    };
    let Some(size) = SIZES.iter().find(|size| size.cpu == cpu) else {
        return Some(("cpu", format!("{cpu} CPU units are no Fargate size"), sizes()));
    };
    if !size.fits(memory) {
        return Some((
            "memory",
            format!("{memory} MiB of memory with {cpu} CPU units are no Fargate size"),
            format!("{cpu} CPU units go with {}", size.memories()),
        ));
    }
    match spec.network_mode {
        NetworkMode::Awsvpc | NetworkMode::Bridge => {}
        NetworkMode::Host | NetworkMode::None => {
            return Some((
                "networkMode",
                "Fargate tasks have a network of their own".to_owned(),
                "`networkMode: awsvpc`".to_owned(),
            ));
        }
    }
    if let Some(volume) = spec.volumes.iter().find(|volume| is_of_host(volume)) {
        return Some((
            "volumes",
            format!("Fargate has no host to mount the volume `{}` from", volume.name),
            "leave its `host` and `dockerVolumeConfiguration` out for an empty volume, or use `launchType: EC2`"
                .to_owned(),
        ));
    }
    spec.container_definitions.iter().any(|container| container.privileged).then(|| {
        (
            "containerDefinitions",
            "Fargate refuses `privileged` containers".to_owned(),
            "leave `privileged` out, or use `launchType: EC2`".to_owned(),
        )
    })
}

/// Whether a volume is a folder of the host, or one of its Docker (ECS).
pub fn is_of_host(volume: &Volume) -> bool {
    let folder = volume.host.as_ref().is_some_and(|host| host.source_path.is_some());
    folder || volume.docker_volume_configuration.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::quantity::{CpuUnits, Mebibytes};

    #[test]
    fn sizes_are_those_of_the_table() {
        let fits = |cpu, memory| {
            unfit(&TaskDefinitionSpec {
                cpu: Some(CpuUnits(cpu)),
                memory: Some(Mebibytes(memory)),
                ..TaskDefinitionSpec::default()
            })
            .is_none()
        };
        for (cpu, memory) in [
            (256, 512),
            (256, 1024),
            (256, 2048),
            (512, 1024),
            (512, 4096),
            (4096, 30 * GIB),
            (8192, 20 * GIB),
            (16384, 120 * GIB),
        ] {
            assert!(fits(cpu, memory), "{cpu} {memory}");
        }
        for (cpu, memory) in [
            (256, 256),
            (256, 1536),
            (256, 3072),
            (512, 512),
            (512, 1536),
            (4096, 31 * GIB),
            (8192, 18 * GIB),
            (16384, 36 * GIB),
            (128, 512),
        ] {
            assert!(!fits(cpu, memory), "{cpu} {memory}");
        }
    }
}
