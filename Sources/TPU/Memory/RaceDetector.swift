/// Finds accesses that no wait orders.
///
/// The rules do not depend on how long anything takes, only on the order that waits, sends and barriers establish:
/// - a granule that a copy writes may not be touched until the copy was waited for;
/// - a granule that a copy reads may not be written until the copy was waited for;
/// - a remote copy may write a granule only if its owner's last access is known to lie before it: the sender has since
///   received something the owner sent afterwards, or both have passed a barrier.
extension SimulationEngine {
    /// The core reads or writes a region itself.
    func checkAccess(_ region: Region, device: Int, isWrite: Bool) throws(DeviceError) {
        guard region.isInside else { throw outside(region, device) }
        guard let granules = memory.granules(region.buffer, device: device) else {
            if isWrite { throw constant(region, device) }
            return
        }
        let step = steps[device]
        let set = region.granules
        for row in 0..<set.rows {
            let first = Int(set.first + row * set.stride)
            for granule in first..<first + Int(set.perRow) {
                let state = granules + granule
                guard state.pointee.writes == 0 else {
                    throw race(region, granule, device, isWrite ? "is written" : "is read", "a copy into it")
                }
                guard !isWrite || state.pointee.reads == 0 else {
                    throw race(region, granule, device, "is written", "a copy out of it")
                }
                state.pointee.lastAccess = step
            }
        }
    }

    /// A copy reads its source from now until its semaphore is waited for.
    func checkSource(_ copy: Copy) throws(DeviceError) {
        let (region, device) = (copy.source, copy.sourceDevice)
        guard region.isInside else { throw outside(region, device) }
        guard let granules = memory.granules(region.buffer, device: device) else { return }
        let set = region.granules
        for row in 0..<set.rows {
            let first = Int(set.first + row * set.stride)
            for granule in first..<first + Int(set.perRow) {
                guard granules[granule].writes == 0 else {
                    throw race(region, granule, device, "is copied from", "a copy into it")
                }
                guard granules[granule].reads < .max else {
                    throw DeviceError(
                        .race,
                        "\(place(region, granule, device)) has \(UInt16.max) copies out of it that were not waited for, "
                            + "the limit")
                }
                granules[granule].reads += 1
            }
        }
        attach(region, set, isWrite: false, to: copy.sentSemaphore, device: device, sender: -1)
    }

    /// A copy writes its target from now until its semaphore is waited for.
    func checkTarget(_ copy: Copy) throws(DeviceError) {
        let (region, device) = (copy.target, copy.targetDevice)
        guard region.isInside else { throw outside(region, device) }
        guard let granules = memory.granules(region.buffer, device: device) else { throw constant(region, device) }
        let sender = copy.sourceDevice
        let heard = copy.isRemote ? known[sender * deviceCount + device] : .max
        let set = region.granules
        for row in 0..<set.rows {
            let first = Int(set.first + row * set.stride)
            for granule in first..<first + Int(set.perRow) {
                let state = granules + granule
                guard state.pointee.writes == 0, state.pointee.reads == 0, state.pointee.lastAccess <= heard else {
                    throw conflict(region, granule, state.pointee, copy)
                }
                state.pointee.writes = 1
            }
        }
        let semaphore = copy.isRemote ? copy.receivedSemaphore : copy.sentSemaphore
        attach(region, set, isWrite: true, to: semaphore, device: device, sender: copy.isRemote ? sender : -1)
    }

    /// Whoever waits for a signal knows what its sender had done until then.
    func noteSignal(_ semaphore: Int, on peer: Int, from sender: Int) {
        guard peer != sender else { return }
        semaphores.attach(
            SemaphoreTable.Pending(
                next: -1, isWrite: false, buffer: 0, granules: GranuleSet(first: 0, perRow: 0, rows: 0, stride: 0),
                sender: Int32(truncatingIfNeeded: sender), senderStep: steps[sender]),
            to: semaphore, device: peer)
    }

    private func attach(
        _ region: Region, _ granules: GranuleSet, isWrite: Bool, to semaphore: Int, device: Int, sender: Int
    ) {
        semaphores.attach(
            SemaphoreTable.Pending(
                next: -1, isWrite: isWrite, buffer: Int32(truncatingIfNeeded: region.buffer.index), granules: granules,
                sender: Int32(truncatingIfNeeded: sender), senderStep: sender < 0 ? 0 : steps[sender]),
            to: semaphore, device: device)
    }

    /// Everything on the semaphore was waited for.
    func settle(_ device: Int, _ semaphore: Int) {
        let step = steps[device]
        semaphores.settle(semaphore, device: device) { entry in
            if entry.sender >= 0 {
                let index = device * deviceCount + Int(entry.sender)
                known[index] = max(known[index], entry.senderStep)
            }
            guard let granules = memory.granules(Int(entry.buffer), device: device) else { return }
            let set = entry.granules
            for row in 0..<set.rows {
                let first = Int(set.first + row * set.stride)
                for granule in first..<first + Int(set.perRow) {
                    if entry.isWrite { granules[granule].writes -= 1 } else { granules[granule].reads -= 1 }
                    granules[granule].lastAccess = step
                }
            }
        }
    }

    private func conflict(_ region: Region, _ granule: Int, _ state: Granule, _ copy: Copy) -> DeviceError {
        let access = "is copied into by device \(copy.sourceDevice)"
        if state.writes > 0 { return race(region, granule, copy.targetDevice, access, "an earlier copy into it") }
        if state.reads > 0 { return race(region, granule, copy.targetDevice, access, "a copy out of it") }
        return DeviceError(
            .race,
            "\(place(region, granule, copy.targetDevice)) \(access), which cannot know that device "
                + "\(copy.targetDevice) has finished with it: no barrier or reply lies in between")
    }

    private func race(
        _ region: Region, _ granule: Int, _ device: Int, _ access: String, _ other: String
    ) -> DeviceError {
        DeviceError(.race, "\(place(region, granule, device)) \(access) before \(other) was waited for")
    }

    private func place(_ region: Region, _ granule: Int, _ device: Int) -> String {
        let phase = cores.indices.contains(device) ? " (\(cores[device].phaseName))" : ""
        return "\(memory.buffers[region.buffer.index].name), row "
            + "\(granule / region.buffer.granuleColumns * region.buffer.granuleRows), of device "
            + "\(device)\(phase)"
    }

    private func outside(_ region: Region, _ device: Int) -> DeviceError {
        DeviceError(
            .bounds,
            "rows \(region.firstRow) to \(region.firstRow + region.rowCount), bytes \(region.firstByte) to "
                + "\(region.firstByte + region.byteCount) of \(memory.buffers[region.buffer.index].name) on device "
                + "\(device): it has \(region.buffer.rowCount) rows of \(region.buffer.rowBytes) bytes")
    }

    private func constant(_ region: Region, _ device: Int) -> DeviceError {
        DeviceError(
            .race, "\(memory.buffers[region.buffer.index].name) of device \(device) is constant and cannot be written")
    }
}
