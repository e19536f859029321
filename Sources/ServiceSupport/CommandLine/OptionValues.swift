/// Parsed values with typed, checked access.
public struct OptionValues: Sendable {
    private let values: [String: String]

    package init(values: [String: String]) { self.values = values }

    /// The text of an option, nil when absent or empty.
    public func text(_ name: String) -> String? {
        guard let value = values[name], !value.isEmpty else { return nil }
        return value
    }

    /// True when the option was given, be it with an empty text.
    public func isGiven(_ name: String) -> Bool { values[name] != nil }

    /// The same values but for one.
    public func setting(_ name: String, to text: String) -> OptionValues {
        var values = values
        values[name] = text
        return OptionValues(values: values)
    }

    /// The same values, with `text` for an option that has none.
    public func defaulting(_ name: String, to text: String) -> OptionValues {
        self.text(name) == nil ? setting(name, to: text) : self
    }

    /// The text of an option that must be there.
    ///
    /// - Throws: `UsageError` when it is absent.
    public func required(_ name: String) throws(UsageError) -> String {
        guard let value = text(name) else { throw UsageError("--\(name) is required; see --help") }
        return value
    }

    /// True when the switch was given.
    public func isOn(_ name: String) -> Bool { Self.truth(values[name] ?? "") == true }

    /// What a switch's text says; nil when it says nothing.
    static func truth(_ text: String) -> Bool? {
        switch text.lowercased() {
        case "true", "1", "yes", "on": true
        case "false", "0", "no", "off": false
        default: nil
        }
    }

    /// A whole number within `range`.
    ///
    /// - Throws: `UsageError` that names the option and the range.
    public func integer(_ name: String, in range: ClosedRange<Int>) throws(UsageError) -> Int {
        let value = try required(name)
        guard let number = Int(Self.trimmed(value)), range.contains(number) else {
            throw UsageError(
                "--\(name) takes a whole number from \(range.lowerBound) to \(range.upperBound), not \"\(value)\"")
        }
        return number
    }

    /// A finite number within `range`.
    ///
    /// - Throws: `UsageError` that names the option and the range.
    public func number(_ name: String, in range: ClosedRange<Double>) throws(UsageError) -> Double {
        let value = try required(name)
        guard let number = Double(Self.trimmed(value)), range.contains(number) else {
            throw UsageError(
                "--\(name) takes a number from \(range.lowerBound) to \(range.upperBound), not \"\(value)\"")
        }
        return number
    }

    /// A number of bytes, with a binary unit behind it or none: 4096, 512MiB, 1.5GiB.
    ///
    /// - Throws: `UsageError` that names the option.
    public func bytes(_ name: String) throws(UsageError) -> Int {
        let value = try required(name)
        let text = Self.trimmed(value)
        let digits = text.prefix { $0.isNumber || $0 == "." }
        let unit = text.dropFirst(digits.count).lowercased()
        let shift = ["": 0, "b": 0, "kib": 10, "mib": 20, "gib": 30, "tib": 40][unit]
        guard let shift, let number = Double(digits), number * Double(1 << shift) < 0x1p52 else {
            throw UsageError("--\(name) takes bytes such as 512MiB or 2GiB, less than 4096TiB, not \"\(value)\"")
        }
        return Int(number * Double(1 << shift))
    }

    /// Comma-separated `host:port` addresses; at least one.
    ///
    /// - Throws: `UsageError` that names the option and the address.
    public func addresses(_ name: String) throws(UsageError) -> [HostPort] {
        var addresses: [HostPort] = []
        for part in try required(name).split(separator: ",") {
            guard let address = HostPort(Self.trimmed(String(part))) else {
                throw UsageError("--\(name) takes HOST:PORT[,HOST:PORT…], [ADDRESS]:PORT for IPv6, not \"\(part)\"")
            }
            addresses.append(address)
        }
        guard !addresses.isEmpty else { throw UsageError("--\(name) needs at least one HOST:PORT") }
        return addresses
    }

    /// The one `host:port` of an option.
    ///
    /// - Throws: `UsageError` that names the option.
    public func address(_ name: String) throws(UsageError) -> HostPort {
        let text = try required(name)
        guard let address = HostPort(Self.trimmed(text)) else {
            throw UsageError("--\(name) takes HOST:PORT, [ADDRESS]:PORT for IPv6, not \"\(text)\"")
        }
        return address
    }

    /// A host to listen on or to call, without brackets.
    ///
    /// - Throws: `UsageError` that names the option.
    public func host(_ name: String = "host") throws(UsageError) -> String {
        let text = Self.trimmed(try required(name))
        guard text.hasPrefix("[") && text.hasSuffix("]") else { return text }
        return String(text.dropFirst().dropLast())
    }

    /// Without the white space at both ends, as a variable from a file has it.
    private static func trimmed(_ text: String) -> String {
        let rest = text.drop(while: \.isWhitespace)
        return String(rest[..<(rest.lastIndex { !$0.isWhitespace }.map { rest.index(after: $0) } ?? rest.startIndex)])
    }
}
