import TPU

extension FusedMoE {
    /// A stand-alone uniform all-to-all: every device sends every device the same share of its payload and waits for
    /// what the others send. It is no part of the kernels; the published figures have one beside them.
    ///
    /// - Parameters:
    ///   - bytesPerDevice: payload of one device, the share it keeps included.
    ///   - devices: how many take part.
    /// - Throws: `FusedMoEError` when the payload cannot be shared out or the device refuses.
    public static func allToAll(
        bytesPerDevice: Int, topology: SliceTopology, devices: Int, parameters: DeviceParameters = .default
    ) throws(FusedMoEError) -> SimulationResult {
        guard devices > 1, bytesPerDevice >= devices, bytesPerDevice <= 1 << 32 else {
            throw FusedMoEError(
                .problem,
                "an all-to-all of \(bytesPerDevice) bytes over \(devices) devices: it takes at least two devices and "
                    + "from 1 byte per peer to 4 GiB per device")
        }
        do {
            return try runAllToAll(bytesPerDevice, topology, devices, parameters)
        } catch { throw FusedMoEError(error) }
    }

    /// Bytes that are sent as one copy.
    private static let pieceBytes = 16 << 10

    private static func runAllToAll(
        _ bytesPerDevice: Int, _ topology: SliceTopology, _ devices: Int, _ parameters: DeviceParameters
    ) throws(DeviceError) -> SimulationResult {
        let slice = try Slice(
            topology: topology, deviceCount: devices, parameters: parameters, storesTensors: false)
        let share = bytesPerDevice / devices
        let pieces = max(1, share / pieceBytes)
        let rowBytes = share / pieces
        let source = try slice.buffer(
            "payload", in: .highBandwidth, rows: devices * pieces, rowBytes: rowBytes, content: .constant)
        let target = try slice.buffer("received", in: .highBandwidth, rows: devices * pieces, rowBytes: rowBytes)
        let sent = slice.semaphore("sent")
        let received = slice.semaphore("received")
        return try slice.run { (core: Core) async throws(DeviceError) in
            try await core.barrier()
            // All peers' pieces in turn, so that no peer waits for the others' payloads.
            for piece in 0..<pieces {
                for step in 1..<devices {
                    let peer = (core.device + step) % devices
                    try core.send(
                        source.rows(peer * pieces + piece, 1), to: target.rows(core.device * pieces + piece, 1),
                        on: peer, sent: sent, received: received)
                }
            }
            let bytes = (devices - 1) * pieces * rowBytes
            try await core.wait(sent, bytes: bytes)
            try await core.wait(received, bytes: bytes)
        }
    }
}
