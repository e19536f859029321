import Foundation

/// What a file says about one parameter, at the least.
public protocol ParameterEntry: Sendable, Equatable, Codable {
    /// The value in use.
    var value: Double { get set }
    /// Smallest value that is plausible.
    var low: Double { get }
    /// Largest value that is plausible.
    var high: Double { get }
    /// Unit of all three.
    var unit: String { get }
}

/// Why a parameter file cannot be used, in one sentence that names the entry.
public struct ParameterFileError: Error, Sendable, CustomStringConvertible {
    /// What is wrong.
    public let description: String
}

/// One entry per name, as a JSON object has them.
public struct ParameterTable<Name, Entry: ParameterEntry>: Sendable, Equatable
where Name: RawRepresentable<String> & CaseIterable & Hashable & Sendable {
    private static var largest: Double { 1e6 }

    private var entries: [Entry]
    private let index: [Name: Int]

    /// Reads an object with one entry per name and nothing else, every value within its range.
    ///
    /// - Parameter isAboveZero: true when a value of zero makes no sense.
    /// - Throws: `ParameterFileError`.
    public init(json: Data, isAboveZero: Bool) throws(ParameterFileError) {
        let file: [String: Entry]
        do {
            file = try JSONDecoder().decode([String: Entry].self, from: json)
        } catch {
            throw ParameterFileError(description: "the parameter file is not an object of entries: \(error)")
        }
        entries = []
        for name in Name.allCases {
            guard let entry = file[name.rawValue] else {
                throw ParameterFileError(description: "the parameter file has no \"\(name.rawValue)\"")
            }
            try Self.check(name, entry, isAboveZero: isAboveZero)
            entries.append(entry)
        }
        if let extra = file.keys.sorted().first(where: { Name(rawValue: $0) == nil }) {
            throw ParameterFileError(description: "the parameter file has \"\(extra)\", which nothing here is called")
        }
        index = Dictionary(uniqueKeysWithValues: zip(Name.allCases, 0...))
    }

    private static func check(_ name: Name, _ entry: Entry, isAboveZero: Bool) throws(ParameterFileError) {
        let isLowRight = isAboveZero ? entry.low > 0 : entry.low >= 0
        guard entry.low.isFinite, isLowRight, entry.low <= entry.high, entry.high < largest else {
            throw ParameterFileError(
                description: "the range of \"\(name.rawValue)\" is \(entry.low) to \(entry.high) \(entry.unit); it "
                    + "must lie above 0\(isAboveZero ? "" : " or at it") and below \(Int(largest))")
        }
        guard entry.value >= entry.low, entry.value <= entry.high else {
            throw ParameterFileError(
                description:
                    "\"\(name.rawValue)\" is \(entry.value), its range is \(entry.low) to \(entry.high) \(entry.unit)")
        }
    }

    /// The file's content: names in a fixed order, so that two writes of the same parameters are the same bytes.
    public func json() -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        let file = Dictionary(uniqueKeysWithValues: Name.allCases.map { ($0.rawValue, self[$0]) })
        return (try? encoder.encode(file)) ?? Data()
    }

    /// Everything the file says about a parameter.
    public subscript(_ name: Name) -> Entry {
        get { entries[index[name] ?? 0] }
        set { entries[index[name] ?? 0] = newValue }
    }
}
