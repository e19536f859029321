import TPU

extension FusedMoE {
    /// A stand-alone uniform all-to-all: every device sends every device the same share of its payload and waits for
    /// what the others send. It is no part of the kernels; the published figures have one beside them.
    ///
    /// - Parameters:
    ///   - rowsPerDevice: payload of one device in rows, the share it keeps included; every row is a copy of its own.
    ///   - rowBytes: bytes of a row.
    ///   - devices: how many take part; they share the rows out evenly.
    /// - Throws: `FusedMoEError` when the payload cannot be shared out or the device refuses.
    public static func allToAll(
        rowsPerDevice: Int, rowBytes: Int, topology: SliceTopology, devices: Int,
        parameters: DeviceParameters = .default
    ) throws(FusedMoEError) -> SimulationResult {
        guard devices > 1, (devices...1 << 20).contains(rowsPerDevice), rowsPerDevice % devices == 0,
            (1...1 << 20).contains(rowBytes)
        else {
            throw FusedMoEError(
                .problem,
                "an all-to-all of \(rowsPerDevice) rows of \(rowBytes) bytes over \(devices) devices: it takes at least "
                    + "two devices, as many rows for each of them, and at most 2^20 rows and bytes of a row")
        }
        do {
            return try runAllToAll(rowsPerDevice / devices, rowBytes, topology, devices, parameters)
        } catch { throw FusedMoEError(error) }
    }

    private static func runAllToAll(
        _ rows: Int, _ rowBytes: Int, _ topology: SliceTopology, _ devices: Int, _ parameters: DeviceParameters
    ) throws(DeviceError) -> SimulationResult {
        let slice = try Slice(
            topology: topology, deviceCount: devices, parameters: parameters, storesTensors: false)
        let source = try slice.buffer(
            "payload", in: .highBandwidth, rows: devices * rows, rowBytes: rowBytes, content: .constant)
        let target = try slice.buffer("received", in: .highBandwidth, rows: devices * rows, rowBytes: rowBytes)
        let sent = slice.semaphore("sent")
        let received = slice.semaphore("received")
        return try slice.run { (core: Core) async throws(DeviceError) in
            try await core.barrier()
            // All peers' rows in turn, so that no peer waits for the others' payloads.
            for row in 0..<rows {
                for step in 1..<devices {
                    let peer = (core.device + step) % devices
                    try core.send(
                        source.rows(peer * rows + row, 1), to: target.rows(core.device * rows + row, 1),
                        on: peer, sent: sent, received: received)
                }
            }
            let bytes = (devices - 1) * rows * rowBytes
            try await core.wait(sent, bytes: bytes)
            try await core.wait(received, bytes: bytes)
        }
    }
}
