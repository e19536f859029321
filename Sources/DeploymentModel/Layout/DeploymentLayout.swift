import TPU

/// Where the parts of a model lie on a slice.
public struct DeploymentLayout: Sendable, Hashable {
    /// Where the experts are.
    public enum Experts: Sendable, Hashable {
        /// On the attention devices: all of them share every MoE layer.
        case colocated
        /// On devices of their own. The rows of a step are split into up to `microBatches`, where that is faster, so that
        /// one is with the attention devices while another is with the experts; 1 takes turns, as the services do.
        case apart(devices: Int, microBatches: Int)
    }

    /// The slice, by name.
    public var slice: String
    /// Groups of devices that compute attention of different requests.
    public var dataParallel: Int
    /// Devices of a group; heads are split over them.
    public var tensorParallel: Int
    /// Where the experts are.
    public var experts: Experts

    /// A layout; `Deployment` says whether it can be.
    public init(slice: String, dataParallel: Int, tensorParallel: Int, experts: Experts = .colocated) {
        self.slice = slice
        self.dataParallel = dataParallel
        self.tensorParallel = tensorParallel
        self.experts = experts
    }

    /// As published: sixteen chips, attention dp 8 × tp 4, eight experts on each of the 32 devices.
    public static let published = DeploymentLayout(slice: "v7x-16", dataParallel: 8, tensorParallel: 4)
    /// The same chips as our services split them: attention on one half, experts on the other.
    public static let disaggregated = DeploymentLayout(
        slice: "v7x-16", dataParallel: 4, tensorParallel: 4, experts: .apart(devices: 16, microBatches: 3))
    /// Eight chips: what each side gets when prefill and decode have slices of their own.
    public static let half = DeploymentLayout(slice: "v7x-8", dataParallel: 4, tensorParallel: 4)

    /// The layouts the command line knows.
    public static let named: [String: DeploymentLayout] = [
        "colocated": .published, "disaggregated": .disaggregated, "half": .half,
    ]

    /// Devices that compute attention; a layout may be nonsense until a deployment has checked it.
    public var attentionDevices: Int {
        let (product, overflow) = dataParallel.multipliedReportingOverflow(by: tensorParallel)
        return overflow ? .max : product
    }
    /// Devices that share the experts.
    public var expertDevices: Int {
        switch experts {
        case .colocated: attentionDevices
        case .apart(let devices, _): devices
        }
    }
    /// Devices in all.
    public var devices: Int {
        switch experts {
        case .colocated: attentionDevices
        case .apart(let devices, _):
            attentionDevices.addingReportingOverflow(devices).overflow ? .max : attentionDevices + devices
        }
    }
    /// Micro-batches of a step.
    public var microBatches: Int {
        switch experts {
        case .colocated: 1
        case .apart(_, let count): count
        }
    }

    /// The slice.
    ///
    /// - Throws: `DeploymentError` with code `.layout` that names what does not go together.
    func topology(_ shape: ModelShape) throws(DeploymentError) -> SliceTopology {
        let topology: SliceTopology
        do { topology = try SliceTopology(named: slice) } catch { throw DeploymentError(.layout, error.description) }
        func check(_ name: String, _ value: Int, _ limit: Int) throws(DeploymentError) {
            guard !(1...limit).contains(value) else { return }
            throw DeploymentError(.layout, "\(name) is \(value), it must be from 1 to \(limit)")
        }
        try check("dp", dataParallel, 256)
        try check("tp", tensorParallel, 64)
        try check("the number of expert devices", expertDevices, 1024)
        try check("the number of micro-batches", microBatches, 8)
        for (name, value) in [
            ("heads", shape.heads), ("dense intermediate", shape.denseIntermediate),
        ] where value % tensorParallel != 0 {
            throw DeploymentError(.layout, "\(name) \(value) does not split over tp \(tensorParallel)")
        }
        guard shape.normGroups % tensorParallel == 0 else {
            let fitting = (1...shape.normGroups).filter { shape.normGroups % $0 == 0 }.map(String.init)
            throw DeploymentError(
                .layout,
                "\(shape.normGroups) norm groups do not split over tp \(tensorParallel): the heads of one group would be "
                    + "normalised apart; tp \(fitting.joined(separator: ", ")) keeps every group whole")
        }
        guard shape.experts.experts % expertDevices == 0 else {
            throw DeploymentError(
                .layout, "\(shape.experts.experts) experts do not split over \(expertDevices) devices")
        }
        guard devices == topology.deviceCount else {
            throw DeploymentError(
                .layout,
                "the layout takes \(devices) devices (attention dp \(dataParallel) × tp \(tensorParallel)"
                    + (experts == .colocated ? "" : ", experts \(expertDevices)")
                    + "), the slice \(slice) has \(topology.deviceCount)")
        }
        return topology
    }
}

extension DeploymentLayout: CustomStringConvertible {
    /// "v7x-16: attention dp 8 × tp 4, experts on the same 32 devices".
    public var description: String {
        let attention = "\(slice): attention dp \(dataParallel) × tp \(tensorParallel)"
        switch experts {
        case .colocated: return attention + ", experts on the same \(attentionDevices) devices"
        case .apart(let devices, let count):
            return attention + ", experts on \(devices) others, up to \(count) micro-batch\(count == 1 ? "" : "es")"
        }
    }
}
