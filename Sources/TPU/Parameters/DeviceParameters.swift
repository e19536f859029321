import Foundation

/// Every number of the device that is not printed on its data sheet (docs/kernels.md#costs), with the range it may have, where
/// it comes from and which measurement identified it.
///
/// `default` is the calibration in `Calibration/parameters.json`. Values are what counts for equality and results.
public struct DeviceParameters: Sendable, Equatable {
    /// One parameter as the file says it.
    public struct Entry: ParameterEntry {
        /// The value in use.
        public var value: Double
        /// Smallest value that is plausible.
        public var low: Double
        /// Largest value that is plausible.
        public var high: Double
        /// Unit of all three.
        public var unit: String
        /// Where the range and the first guess come from.
        public var source: String
        /// The measurement that decides the value.
        public var identifiedBy: String
        /// True when calibration may change the value.
        public var fitted: Bool

        enum CodingKeys: String, CodingKey {
            case value, low, high, unit, source, fitted
            case identifiedBy = "identified_by"
        }
    }

    /// The parameters by the names the file has.
    public enum Name: String, Sendable, CaseIterable {
        /// One-way rate of an inter-chip link.
        case linkRate = "link_gigabytes_per_second"
        /// What every copy costs on a link besides its bytes.
        case linkCopyCost = "link_nanoseconds_per_copy"
        /// Latency of one hop.
        case hopLatency = "hop_nanoseconds"
        /// Latency of a remote copy besides its hops.
        case remoteLatency = "remote_copy_nanoseconds"
        /// One-way rate of the link between the two devices of a chip.
        case dieLinkRate = "die_link_gigabytes_per_second"
        /// A barrier over 32 devices.
        case barrier = "barrier_microseconds"
        /// Core time to issue one copy.
        case copyIssue = "copy_issue_nanoseconds"
        /// Core time of one iteration of a scalar loop.
        case scalarLoop = "scalar_loop_nanoseconds"
        /// Peak HBM rate.
        case memoryRate = "hbm_gigabytes_per_second"
        /// Share of the peak that a stream reaches.
        case memoryEfficiency = "hbm_efficiency"
        /// Latency of a local copy.
        case memoryLatency = "hbm_nanoseconds"
        /// HBM bytes per second of copies of single rows.
        case rowCopyRate = "row_copy_gigabytes_per_second"
        /// Clock of the core.
        case clock = "clock_gigahertz"
        /// Fewest cycles a matrix unit spends on one 256×256 weight tile.
        case matrixFloor = "matrix_floor_cycles"
        /// Both first products of one row, H 8192 and I 2048.
        case firstProducts = "first_products_nanoseconds_per_row"
        /// Activation and second product of one row, H 8192 and I 2048.
        case secondProduct = "second_product_nanoseconds_per_row"
        /// Fixed core time of one call of the products.
        case computeCall = "compute_call_nanoseconds"
        /// How much more a product with scales per 128 inputs costs.
        case blockScaleFactor = "block_scale_factor"
        /// How much more a row's products cost in V1.
        case slicedFactor = "sliced_product_factor"
        /// Quantisation of one row, H 8192.
        case quantizeRow = "quantize_nanoseconds_per_row"
        /// Weighted addition of one result row, H 8192.
        case combineRow = "combine_nanoseconds_per_row"
        /// Start and end of a kernel.
        case launch = "launch_microseconds"
    }

    /// How HBM is shared by the copies that are under way.
    public enum Arbitration: String, Sendable, Equatable, CaseIterable {
        /// Every long copy gets the same share; rows go first.
        case fair
        /// In the order they were issued; rows go first.
        case fifo
    }

    private var table: ParameterTable<Name, Entry>
    /// How HBM is shared.
    public var arbitration = Arbitration.fifo

    /// The committed calibration.
    public static let `default`: DeviceParameters = {
        do {
            return try DeviceParameters(json: Data(PackageResources.parameters_json))
        } catch {
            preconditionFailure("the embedded parameters are broken: \(error)")
        }
    }()

    /// Reads a parameter file: an object with one entry per name and nothing else.
    ///
    /// - Throws: `DeviceError` with code `.parameters` that names the entry.
    public init(json: Data) throws(DeviceError) {
        do throws(ParameterFileError) { table = try ParameterTable(json: json, isAboveZero: false) } catch {
            throw DeviceError(.parameters, error.description)
        }
    }

    /// The file's content: names in a fixed order, so that two writes of the same parameters are the same bytes.
    public func json() -> Data { table.json() }

    /// The value of a parameter.
    public subscript(_ name: Name) -> Double {
        get { self[entry: name].value }
        set { self[entry: name].value = newValue }
    }

    /// Everything the file says about a parameter.
    public subscript(entry name: Name) -> Entry {
        get { table[name] }
        set { table[name] = newValue }
    }

    /// Nanoseconds to picoseconds.
    public func picoseconds(nanoseconds name: Name) -> Picoseconds { Picoseconds((self[name] * 1e3).rounded()) }

    /// Microseconds to picoseconds.
    public func picoseconds(microseconds name: Name) -> Picoseconds { Picoseconds((self[name] * 1e6).rounded()) }

    /// A barrier over `devices` devices: half of it is latency, half grows with the peers that are signalled.
    public func barrier(devices: Int) -> Picoseconds {
        devices < 2 ? 0 : Picoseconds((self[.barrier] * 1e6 * (0.5 + 0.5 * Double(devices - 1) / 31)).rounded())
    }
}
