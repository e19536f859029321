import Foundation
import TPU

/// Every number of the step costs that is neither the model's shape nor the simulated device's, with the range it may
/// have and how we came by it.
///
/// `default` is `Parameters/parameters.json`. What belongs to the device itself (HBM, links) comes from
/// `TPU.DeviceParameters`.
public struct CostParameters: Sendable, Equatable {
    /// How a value was come by.
    public enum Provenance: String, Sendable, Codable, CaseIterable {
        /// Somebody measured and published it.
        case published
        /// Follows from published numbers by the arithmetic that `source` gives.
        case derived
        /// Fitted, to the figure that `source` names.
        case calibrated
        /// What the hardware cannot do better than.
        case speedOfLight = "speed-of-light"
        /// A guess within a range, to be replaced by a measurement.
        case assumed
    }

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
        /// How it was come by.
        public var provenance: Provenance
        /// Where from, or by which arithmetic.
        public var source: String
    }

    /// The parameters by the names the file has.
    public enum Name: String, Sendable, CaseIterable {
        /// Measured rate of a dense bf16 product of three equal sides.
        case dense128 = "dense_128_teraflops"
        /// Side 256.
        case dense256 = "dense_256_teraflops"
        /// Side 512.
        case dense512 = "dense_512_teraflops"
        /// Side 1024.
        case dense1024 = "dense_1024_teraflops"
        /// Side 2048.
        case dense2048 = "dense_2048_teraflops"
        /// Side 4096.
        case dense4096 = "dense_4096_teraflops"
        /// Side 16384.
        case dense16384 = "dense_16384_teraflops"
        /// Side 32768.
        case dense32768 = "dense_32768_teraflops"
        /// Least time of one compiled operation.
        case operation = "operation_microseconds"
        /// bf16 passes of a product that is exact to fp32.
        case exactPasses = "exact_product_passes"
        /// Rate of MLA over a prompt's rows.
        case latentPrefill = "latent_prefill_teraflops"
        /// bf16-equivalent rate of the products of chunk-wise linear attention, before passes.
        case linearPrefill = "linear_prefill_teraflops"
        /// Latency of one step of a collective.
        case collectiveStep = "collective_step_microseconds"
        /// Times the logits are read or written until a token is chosen.
        case samplingPasses = "sampling_passes"
        /// Host time between two steps that no device work hides.
        case host = "host_milliseconds_per_step"
        /// HBM of one device.
        case memory = "hbm_gibibytes"
        /// Share of it that weights, pools and workspace may take.
        case memoryShare = "hbm_usable_share"
        /// Recurrent pool to KV pool, as bytes.
        case poolRatio = "pool_ratio"
        /// Network between slices, per chip and direction.
        case network = "network_gigabits_per_chip"
        /// HBM of one H200.
        case referenceMemory = "h200_memory_gigabytes"
        /// HBM rate of one H200.
        case referenceMemoryRate = "h200_memory_terabytes_per_second"
        /// Dense fp8 peak of one H200.
        case referenceFloat8 = "h200_float8_teraflops"
        /// Dense bf16 peak of one H200.
        case referenceBFloat16 = "h200_bfloat16_teraflops"
        /// NVLink of one H200, one direction.
        case referenceLink = "h200_nvlink_gigabytes_per_second"
        /// Network of one H200, one direction.
        case referenceNetwork = "h200_network_gigabits_per_second"
        /// Share of its peaks that an H200 reaches.
        case referenceEfficiency = "h200_efficiency"
        /// Latency of one all-reduce over eight H200.
        case referenceReduce = "h200_all_reduce_microseconds"
        /// Kernel of a captured graph: start to start when there is nothing to do.
        case referenceOperation = "h200_operation_microseconds"
        /// Host time between two steps of a pipeline.
        case referenceHost = "h200_host_milliseconds_per_step"
    }

    private var table: ParameterTable<Name, Entry>

    /// The committed parameters.
    public static let `default`: CostParameters = {
        do {
            return try CostParameters(json: Data(PackageResources.parameters_json))
        } catch {
            preconditionFailure("the embedded parameters are broken: \(error)")
        }
    }()

    /// Reads a parameter file: an object with one entry per name and nothing else.
    ///
    /// - Throws: `DeploymentError` with code `.parameters` that names the entry.
    public init(json: Data) throws(DeploymentError) {
        do throws(ParameterFileError) { table = try ParameterTable(json: json, isAboveZero: true) } catch {
            throw DeploymentError(.parameters, error.description)
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
}
