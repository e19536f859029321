extension SimulationEngine {
    /// A core reaches the barrier; all go on together.
    func arriveAtBarrier(_ core: Core) {
        waitingAtBarrier.append(core.device)
        latestAtBarrier = max(latestAtBarrier, core.now)
        guard waitingAtBarrier.count == deviceCount else { return }
        events.push(at: latestAtBarrier + costs.barrier, .barrier, 0)
    }

    func releaseBarrier() {
        waitingAtBarrier.removeAll(keepingCapacity: true)
        latestAtBarrier = 0
        for device in 0..<deviceCount {
            for peer in 0..<deviceCount { known[device * deviceCount + peer] = steps[peer] }
        }
        for device in 0..<deviceCount {
            steps[device] += 1
            cores[device].resume(at: now)
        }
    }
}

extension SimulationEngine {
    /// Who waits for what, when a core cannot go on.
    func deadlockReport() -> DeviceError? {
        let waiting = cores.filter { !$0.isFinished }
        guard !waiting.isEmpty else { return nil }
        let lines = waiting.prefix(8).map { core in
            guard let semaphore = core.waitsFor else {
                return "device \(core.device) (\(core.phaseName)) waits at the barrier for "
                    + "\(deviceCount - waitingAtBarrier.count) more"
            }
            let state = semaphores.state(semaphore, device: core.device).pointee
            return "device \(core.device) (\(core.phaseName)) waits for \(core.waitedBytes) bytes on "
                + "\(semaphoreNames[semaphore]), which has \(state.value)"
        }
        let rest = waiting.count > 8 ? "; and \(waiting.count - 8) more" : ""
        return DeviceError(.deadlock, "no core can go on: " + lines.joined(separator: "; ") + rest)
    }

    /// A semaphore that is not zero at the end of a program would spoil the next one.
    func leftovers() -> DeviceError? {
        for device in 0..<deviceCount {
            for semaphore in 0..<semaphores.semaphoreCount {
                let state = semaphores.state(semaphore, device: device).pointee
                guard state.value != 0 || state.underWay != 0 else { continue }
                return DeviceError(
                    .semaphore,
                    "device \(device) ends with \(state.value) bytes on \(semaphoreNames[semaphore]) that nobody waited for"
                )
            }
        }
        return nil
    }
}
