/// The parameters as the engine uses them.
struct DeviceCosts {
    /// Copies up to this many bytes go first at HBM, like rows.
    static let longestShortCopy: Int64 = 64 << 10

    let link: Rate
    let linkCopyCost: Picoseconds
    let dieLink: Rate
    let memory: Rate
    let rows: Rate
    let memoryLatency: Picoseconds
    let onChipLatency: Picoseconds
    let remoteLatency: Picoseconds
    let hopLatency: Picoseconds
    let barrier: Picoseconds
    let copyIssue: Picoseconds
    let launch: Picoseconds

    init(_ parameters: DeviceParameters, deviceCount: Int) {
        link = Rate(gigabytesPerSecond: parameters[.linkRate])
        linkCopyCost = parameters.picoseconds(nanoseconds: .linkCopyCost)
        dieLink = Rate(gigabytesPerSecond: parameters[.dieLinkRate])
        memory = Rate(gigabytesPerSecond: parameters[.memoryRate] * parameters[.memoryEfficiency])
        rows = Rate(gigabytesPerSecond: parameters[.rowCopyRate])
        memoryLatency = parameters.picoseconds(nanoseconds: .memoryLatency)
        // 75 cycles (docs/kernels.md#the-device).
        onChipLatency = Picoseconds((75_000 / parameters[.clock]).rounded())
        remoteLatency = parameters.picoseconds(nanoseconds: .remoteLatency)
        hopLatency = parameters.picoseconds(nanoseconds: .hopLatency)
        barrier = parameters.barrier(devices: deviceCount)
        copyIssue = parameters.picoseconds(nanoseconds: .copyIssue)
        launch = parameters.picoseconds(microseconds: .launch)
    }
}
