import Files
import Foundation
import JSON

/// Checked access to the fields of a JSON object: every value has a range, every refusal names the field. A field that is
/// null counts as absent; NaN and infinities do no harm in a field that is not read.
struct ConfigurationFields {
    let members: [JSONValue.Member]
    let path: String

    init(json data: some Collection<UInt8>, path: String) throws(CheckpointError) {
        let value: JSONValue
        do throws(JSONError) { value = try JSONValue(parsing: Array(data), allowsNonFinite: true) } catch {
            throw CheckpointError(.configuration, "\(path), \(error)")
        }
        guard case .object(let members) = value else {
            throw CheckpointError(.configuration, "\(path) is not a JSON object")
        }
        self.init(members: members, path: path)
    }

    init(members: [JSONValue.Member], path: String) {
        self.members = members
        self.path = path
    }

    func value(_ name: String) -> JSONValue? {
        guard let member = members.first(where: { $0.name.utf8.elementsEqual(name.utf8) }), member.value != .null else {
            return nil
        }
        return member.value
    }

    /// The fields of an object within this one, nil when absent.
    func object(_ name: String) throws(CheckpointError) -> ConfigurationFields? {
        switch value(name) {
        case nil: return nil
        case .object(let members): return ConfigurationFields(members: members, path: "\(path): \(name)")
        case let other?: throw refuse(name, "must be an object, not \(Self.shown(other))")
        }
    }

    func refuse(_ name: String, _ reason: String) -> CheckpointError {
        CheckpointError(.configuration, "\(path): \(name) \(reason)")
    }

    func integer(_ name: String, in range: ClosedRange<Int>, fallback: Int? = nil) throws(CheckpointError) -> Int {
        guard let raw = value(name) else {
            guard let fallback else { throw refuse(name, "is missing") }
            guard range.contains(fallback) else {
                throw refuse(
                    name,
                    "is missing and follows from other fields as \(fallback), which is not from \(range.lowerBound) to "
                        + "\(range.upperBound)")
            }
            return fallback
        }
        guard let number = raw.integer, range.contains(number) else {
            throw refuse(
                name,
                "must be a whole number from \(range.lowerBound) to \(range.upperBound), not \(Self.shown(raw))")
        }
        return number
    }

    func number(_ name: String, in range: ClosedRange<Double>, fallback: Double? = nil) throws(CheckpointError)
        -> Double
    {
        guard let raw = value(name) else {
            guard let fallback else { throw refuse(name, "is missing") }
            return fallback
        }
        guard let number = raw.double, range.contains(number) else {
            throw refuse(
                name, "must be a number from \(range.lowerBound) to \(range.upperBound), not \(Self.shown(raw))")
        }
        return number
    }

    func flag(_ name: String, fallback: Bool) throws(CheckpointError) -> Bool {
        guard let raw = value(name) else { return fallback }
        guard case .bool(let flag) = raw else { throw refuse(name, "must be true or false, not \(Self.shown(raw))") }
        return flag
    }

    func text(_ name: String) throws(CheckpointError) -> String? {
        guard let raw = value(name) else { return nil }
        guard case .string(let text) = raw else { throw refuse(name, "must be a string, not \(Self.shown(raw))") }
        return text
    }

    func require(_ name: String, _ wanted: Bool, fallback: Bool) throws(CheckpointError) {
        guard try flag(name, fallback: fallback) == wanted else {
            throw refuse(name, "must be \(wanted): the other setting is not supported")
        }
    }

    /// A value as a sentence shows it.
    static func shown(_ value: JSONValue) -> String {
        let text = value.text
        return text.count > 80 ? String(text.prefix(80)) + "…" : text
    }
}

/// The bytes of a small file, or an error that names it.
func readFile(_ url: URL, limit: Int) throws(CheckpointError) -> Data {
    Data(try reading { () throws(FileError) in try OpenFile.content(url.path, limit: limit) })
}

/// What `body` reads; what is wrong with the file is wrong with the checkpoint.
func reading<Value: ~Copyable>(_ body: () throws(FileError) -> Value) throws(CheckpointError) -> Value {
    do throws(FileError) { return try body() } catch { throw CheckpointError(.unreadable, error.description) }
}
