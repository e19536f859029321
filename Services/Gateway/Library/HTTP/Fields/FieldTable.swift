import JSON

/// What a request may do with a field.
package enum FieldRule: Sendable, Equatable {
    /// It means something here.
    case read
    /// It changes nothing of the answer, whatever it holds: a name, an id, an annotation, a hint. Accepted and counted.
    case harmless
    /// These values ask for what happens anyway, and are accepted and counted. Any other would change the answer, and is
    /// refused; the sentence says what is served instead.
    case usual([JSONValue], String)
    /// It would change the answer, and is refused; the sentence says what is served instead.
    case refused(String)
}

/// The fields of one kind of object: the one place that says what becomes of each. `openapi.json` is held to it by a test.
package struct FieldTable: Sendable {
    /// The schema of `openapi.json` that describes the object.
    package let schema: String
    /// What becomes of each field.
    package private(set) var rules: [String: FieldRule]
    /// What becomes of fields that are not named.
    package let others: FieldRule

    /// A table of fields by their class; those not named are unknown.
    init(
        _ schema: String, read: [String], harmless: [String] = [], usual: [(String, [JSONValue], String)] = [],
        refused: [(String, String)] = [], others: FieldRule = .refused("is not a field of this request")
    ) {
        self.schema = schema
        self.others = others
        rules = [:]
        for name in read { rules[name] = .read }
        for name in harmless { rules[name] = .harmless }
        for (name, values, sentence) in usual { rules[name] = .usual(values, sentence) }
        for (name, sentence) in refused { rules[name] = .refused(sentence) }
    }

    /// This table with what `other` says besides.
    func with(_ other: FieldTable) -> FieldTable {
        var table = self
        table.rules.merge(other.rules) { own, _ in own }
        return table
    }
}

/// How many fields of a class were accepted without being used.
package struct FieldCounts: Sendable, Equatable {
    /// Fields that change nothing.
    package var harmless = 0
    /// Fields that ask for what happens anyway.
    package var usual = 0

    /// None.
    package init() {}
}

extension JSONValue {
    /// True for values that say the same: numbers by their value, objects whatever the order of their members.
    package func says(_ other: JSONValue) -> Bool {
        switch (self, other) {
        case (.number(let one), .number(let two)):
            one == two || (Double(one)?.isFinite == true && Double(one) == Double(two))
        case (.array(let one), .array(let two)):
            one.count == two.count && zip(one, two).allSatisfy { $0.says($1) }
        case (.object(let one), .object(let two)):
            one.count == two.count && one.allSatisfy { other[$0.name]?.says($0.value) ?? false }
        default: self == other
        }
    }
}
