/// The block sizes of a kernel, by the names the published kernels give them (docs/kernels.md#problem-and-tiles).
public struct TileConfiguration: Sendable, Equatable {
    /// Outer token tile on the source device, rows.
    public var bt: Int
    /// Tile of the intermediate width.
    public var bf: Int
    /// Rows of one expert staged in VMEM.
    public var bts: Int
    /// Rows of one inner compute call; divides `bts`.
    public var btc: Int
    /// Block of the shared expert's intermediate width.
    public var bse: Int
    /// V1 only: slice of the hidden width of the first products; 0 for V2.
    public var bd1: Int
    /// V1 only: slice of the hidden width of the second product; 0 for V2.
    public var bd2: Int

    /// A tile with these sizes.
    public init(bt: Int, bf: Int, bts: Int, btc: Int, bse: Int, bd1: Int = 0, bd2: Int = 0) {
        self.bt = bt
        self.bf = bf
        self.bts = bts
        self.btc = btc
        self.bse = bse
        self.bd1 = bd1
        self.bd2 = bd2
    }

    /// The same rows with a narrower tile of the intermediate width.
    func narrowed(by divisor: Int) -> TileConfiguration {
        var tile = self
        tile.bf = max(128, bf / divisor)
        tile.bse = min(bse, tile.bf)
        return tile
    }

    /// The names in the order they are printed.
    static let fields: [(name: String, path: any WritableKeyPath<TileConfiguration, Int> & Sendable)] = [
        ("bt", \.bt), ("bf", \.bf), ("bts", \.bts), ("btc", \.btc), ("bse", \.bse), ("bd1", \.bd1), ("bd2", \.bd2),
    ]
}

extension TileConfiguration: CustomStringConvertible {
    /// The sizes by name in the order they are printed, without those that are 0.
    public var sizes: [(name: String, size: Int)] {
        Self.fields.map { ($0.name, self[keyPath: $0.path]) }.filter { $0.size != 0 }
    }

    /// `bt=128,bf=512,…`, without the sizes that are 0.
    public var description: String { sizes.map { "\($0.name)=\($0.size)" }.joined(separator: ",") }
}

/// Some block sizes, given by a user; the others come from the tuned tile.
public struct TileOverrides: Sendable, Equatable {
    /// Sizes by name.
    public private(set) var sizes: [String: Int] = [:]

    /// Nothing given.
    public init() {}

    /// Parses `bt=128,bf=512,…`.
    ///
    /// - Throws: `FusedMoEError` with code `.tile` for an unknown or repeated name or a size outside 1…65536.
    public init(parsing text: String) throws(FusedMoEError) {
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let pair = part.split(separator: "=", omittingEmptySubsequences: false)
            let name = pair.first.map(String.init) ?? ""
            guard pair.count == 2, TileConfiguration.fields.contains(where: { $0.name == name }) else {
                throw FusedMoEError(.tile, "a tile is written bt=…,bf=…,bts=…,btc=…,bse=…,bd1=…,bd2=…, not \"\(part)\"")
            }
            guard sizes[name] == nil else { throw FusedMoEError(.tile, "the tile gives \(name) twice") }
            guard let size = Int(pair[1]), (1...MoEProblem.Limits.width).contains(size) else {
                throw FusedMoEError(
                    .tile, "\(name) is \"\(pair[1])\", it must be a whole number from 1 to \(MoEProblem.Limits.width)")
            }
            sizes[name] = size
        }
    }

    /// `tile` with the given sizes, and sizes that were not given brought in line with them.
    public func applied(to tile: TileConfiguration) -> TileConfiguration {
        var result = tile
        for field in TileConfiguration.fields {
            if let size = sizes[field.name] { result[keyPath: field.path] = size }
        }
        if sizes["bts"] == nil, sizes["bt"] != nil { result.bts = max(result.bts, result.bt) }
        if sizes["btc"] == nil { result.btc = Self.divisor(of: result.bts, atMost: min(result.btc, 128), unit: 8) }
        if sizes["bse"] == nil { result.bse = Self.divisor(of: result.bf, atMost: result.bse, unit: 128) }
        return result
    }

    /// The largest multiple of `unit` up to `bound` that divides `value`; `bound` itself when there is none.
    static func divisor(of value: Int, atMost bound: Int, unit: Int) -> Int {
        guard bound >= unit else { return bound }
        return stride(from: min(bound, value) / unit * unit, to: 0, by: -unit).first { value % $0 == 0 } ?? bound
    }
}
