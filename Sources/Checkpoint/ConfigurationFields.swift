import Foundation

/// Checked access to the fields of a JSON object: every value has a range, every refusal names the field.
struct ConfigurationFields {
    let object: [String: Any]
    let path: String

    init(json data: Data, path: String) throws(CheckpointError) {
        guard let parsed = try? JSONSerialization.jsonObject(with: data), let object = parsed as? [String: Any] else {
            throw CheckpointError(.configuration, "\(path) is not a JSON object")
        }
        self.init(object: object, path: path)
    }

    init(object: [String: Any], path: String) {
        self.object = object
        self.path = path
    }

    func value(_ name: String) -> Any? {
        guard let value = object[name], !(value is NSNull) else { return nil }
        return value
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
        guard let number = raw as? NSNumber, number.doubleValue == number.doubleValue.rounded(),
            number.doubleValue.magnitude < 1e15, range.contains(number.intValue)
        else {
            throw refuse(name, "must be a whole number from \(range.lowerBound) to \(range.upperBound), not \(raw)")
        }
        return number.intValue
    }

    func number(_ name: String, in range: ClosedRange<Double>, fallback: Double? = nil) throws(CheckpointError)
        -> Double
    {
        guard let raw = value(name) else {
            guard let fallback else { throw refuse(name, "is missing") }
            return fallback
        }
        guard let number = raw as? NSNumber, range.contains(number.doubleValue) else {
            throw refuse(name, "must be a number from \(range.lowerBound) to \(range.upperBound), not \(raw)")
        }
        return number.doubleValue
    }

    func flag(_ name: String, fallback: Bool) throws(CheckpointError) -> Bool {
        guard let raw = value(name) else { return fallback }
        guard let flag = raw as? Bool else { throw refuse(name, "must be true or false, not \(raw)") }
        return flag
    }

    func text(_ name: String) throws(CheckpointError) -> String? {
        guard let raw = value(name) else { return nil }
        guard let text = raw as? String else { throw refuse(name, "must be a string") }
        return text
    }

    func require(_ name: String, _ wanted: Bool, fallback: Bool) throws(CheckpointError) {
        guard try flag(name, fallback: fallback) == wanted else {
            throw refuse(name, "must be \(wanted): the other setting is not supported")
        }
    }
}
