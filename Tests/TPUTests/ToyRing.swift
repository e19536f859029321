import TPU

/// Every device's block to every device, around a ring: a block is passed on while it is stored. Two slots, and a notice to
/// the neighbour behind when one is free again. The second example of a kernel.
struct ToyRing: Sendable {
    let rows: Int
    let block, slots, gathered: Buffer
    let loaded, stored, sent: Semaphore
    let arrived, free: SemaphoreArray

    init(_ slice: Slice, rows: Int, rowBytes: Int) throws(DeviceError) {
        self.rows = rows
        block = try slice.buffer("block", in: .highBandwidth, rows: rows, rowBytes: rowBytes, content: .constant)
        slots = try slice.buffer("slots", in: .vector, rows: 2 * rows, rowBytes: rowBytes, granuleRows: rows)
        gathered = try slice.buffer(
            "gathered", in: .highBandwidth, rows: slice.deviceCount * rows, rowBytes: rowBytes)
        (loaded, stored) = (slice.semaphore("loaded"), slice.semaphore("stored"))
        sent = slice.semaphore("sent")
        (arrived, free) = (slice.semaphores("arrived", count: 2), slice.semaphores("free", count: 2))
    }

    func run(_ core: Core, waitsForNotice: Bool = true) async throws(DeviceError) {
        let (count, bytes) = (core.deviceCount, rows * slots.rowBytes)
        let (next, previous) = ((core.device + 1) % count, (core.device + count - 1) % count)
        try core.copy(block.rows(0, rows), to: slots.rows(0, rows), signalling: loaded)
        try await core.wait(loaded, bytes: bytes)
        try await core.barrier()
        for step in 0..<count {
            let slot = step % 2
            let here = slots.rows(slot * rows, rows)
            if step > 0 { try await core.wait(arrived[slot], bytes: bytes) }
            if step + 1 < count {
                // The next device's other slot held what it passed on a step ago.
                if step > 0, waitsForNotice { try await core.wait(free[1 - slot], bytes: 1) }
                try core.send(
                    here, to: slots.rows((1 - slot) * rows, rows), on: next, sent: sent, received: arrived[1 - slot])
            }
            let source = (core.device + count - step) % count
            try core.copy(here, to: gathered.rows(source * rows, rows), signalling: stored)
            try await core.wait(stored, bytes: bytes)
            if step + 1 < count { try await core.wait(sent, bytes: bytes) }
            if step + 2 < count, waitsForNotice { try core.signal(free[slot], on: previous, count: 1) }
        }
    }
}
