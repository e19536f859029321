import JSON
import Tokenization
import WireProtocol

/// Checked access to the members of a JSON object; every refusal names the field. Members that are null count as absent.
package struct RequestFields {
    private let members: [JSONValue.Member]
    /// What stands before field names in refusals.
    package let prefix: String

    /// The members of `value`, which must be an object; `path` stands before field names in refusals.
    package init(_ value: JSONValue, path: String = "") throws(APIError) {
        guard case .object(let members) = value else {
            throw path.isEmpty
                ? APIError(400, type: "invalid_request_error", message: "The body is not a JSON object.")
                : .invalid(String(path.dropLast()), "must be an object")
        }
        self.members = members.filter { $0.value != .null }
        prefix = path
    }

    /// The JSON document in a request's body.
    package static func document(_ body: [UInt8]) throws(APIError) -> JSONValue {
        do throws(JSONError) { return try JSONValue(parsing: body) } catch {
            throw APIError(400, type: "invalid_request_error", message: "The body is not valid JSON: \(error)")
        }
    }

    /// Refuses every member that the table does not allow, and counts those that are accepted without being used.
    package func check(_ table: FieldTable, _ counts: inout FieldCounts) throws(APIError) {
        for member in members {
            let name = prefix + member.name.prefix(64)
            switch table.rules[member.name] ?? table.others {
            case .read: continue
            case .harmless: counts.harmless += 1
            case .usual(let values, let instead):
                guard values.contains(where: member.value.says) else {
                    let wanted = values.map(\.text).joined(separator: " or ")
                    throw .invalid(
                        name, "is supported only as \(wanted): \(instead)", code: APIError.unsupportedField)
                }
                counts.usual += 1
            case .refused(let reason):
                guard table.rules[member.name] != nil else {
                    throw .invalid(name, reason, code: APIError.unknownField)
                }
                throw .invalid(name, "is not supported: \(reason)", code: APIError.unsupportedField)
            }
        }
    }

    /// Refuses a field that is there and has none of these values.
    package func only(_ name: String, _ values: [JSONValue]) throws(APIError) {
        guard let value = self[name], !values.contains(value) else { return }
        let wanted = values.map(\.text).joined(separator: " or ")
        throw .invalid(
            prefix + name, wanted.isEmpty ? "is not supported" : "is supported only as \(wanted)",
            code: APIError.unsupportedField)
    }

    /// The value of a field, nil when absent or null.
    package subscript(_ name: String) -> JSONValue? {
        members.first { $0.name.utf8.elementsEqual(name.utf8) }?.value
    }

    /// A refusal of the field `name`.
    package func refusal(_ name: String, _ reason: String) -> APIError { .invalid(prefix + name, reason) }

    /// A finite number in `range`, nil when absent.
    package func number(_ name: String, in range: ClosedRange<Float>) throws(APIError) -> Float? {
        guard let value = self[name] else { return nil }
        guard let number = Self.number(value), range.contains(Float(number)) else {
            throw refusal(name, "must be a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return Float(number)
    }

    /// A whole number in `range`, nil when absent. `1.0` and `1e2` count as whole.
    package func integer(_ name: String, in range: ClosedRange<Int>) throws(APIError) -> Int? {
        guard let value = self[name] else { return nil }
        guard let number = Self.integer(value), range.contains(number) else {
            throw refusal(name, "must be a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// True or false, `fallback` when absent.
    package func flag(_ name: String, fallback: Bool = false) throws(APIError) -> Bool {
        guard let value = self[name] else { return fallback }
        guard case .bool(let flag) = value else { throw refusal(name, "must be true or false") }
        return flag
    }

    /// A text of at most `limit` bytes, nil when absent.
    package func text(_ name: String, limit: Int = MessageLimits.textBytes) throws(APIError) -> String? {
        guard let value = self[name] else { return nil }
        guard case .string(let text) = value else { throw refusal(name, "must be a string") }
        guard text.utf8.count <= limit else {
            throw refusal(name, "has \(text.utf8.count) bytes, the limit is \(limit)")
        }
        return text
    }

    /// At most `limit` token ids, nil when absent.
    package func tokens(_ name: String, limit: Int) throws(APIError) -> [UInt32]? {
        guard let value = self[name] else { return nil }
        guard case .array(let values) = value else { throw refusal(name, "must be an array of token ids") }
        return try tokens(name, values, limit: limit)
    }

    /// Token ids from the elements of an array.
    package func tokens(_ name: String, _ values: [JSONValue], limit: Int) throws(APIError) -> [UInt32] {
        guard values.count <= limit else { throw refusal(name, "has \(values.count) token ids, the limit is \(limit)") }
        var ids: [UInt32] = []
        ids.reserveCapacity(values.count)
        for value in values {
            guard let number = Self.integer(value), let id = UInt32(exactly: number) else {
                throw refusal(name, "holds \(value.text.prefix(32)), which is not a token id")
            }
            ids.append(id)
        }
        return ids
    }

    /// One text or an array of texts, at most `limit` of them; empty ones are left out.
    package func texts(_ name: String, limit: Int, byteLimit: Int) throws(APIError) -> [String] {
        let values: [JSONValue]
        switch self[name] {
        case nil: return []
        case .array(let several): values = several
        case .some(let one): values = [one]
        }
        var texts: [String] = []
        for value in values {
            guard case .string(let text) = value, text.utf8.count <= byteLimit, texts.count < limit else {
                throw refusal(name, "must be one string or at most \(limit), each of at most \(byteLimit) bytes")
            }
            if !text.isEmpty { texts.append(text) }
        }
        return texts
    }

    /// The object in a field, nil when absent.
    package func object(_ name: String) throws(APIError) -> RequestFields? {
        guard let value = self[name] else { return nil }
        return try RequestFields(value, path: "\(prefix)\(name).")
    }

    /// A finite number; JSON numbers too large for a Double are none.
    package static func number(_ value: JSONValue) -> Double? {
        guard case .number(let spelling) = value, spelling.utf8.count <= 400, let number = Double(spelling),
            number.isFinite
        else { return nil }
        return number
    }

    /// A number that is whole and fits.
    package static func integer(_ value: JSONValue) -> Int? {
        guard case .number(let spelling) = value, spelling.utf8.count <= 400 else { return nil }
        if let number = Int(spelling) { return number }
        // What has too many digits must not become whole by rounding: only a fraction or an exponent is read otherwise.
        guard spelling.utf8.contains(where: { [UInt8(ascii: "."), UInt8(ascii: "e"), UInt8(ascii: "E")].contains($0) })
        else { return nil }
        return Double(spelling).flatMap { Int(exactly: $0) }
    }
}
