/// The members of an object while it is read: names are compared by their bytes, and a name that comes again takes the
/// place of the earlier one, as every common parser has it.
struct JSONMembers {
    private struct Name: Hashable {
        let text: String

        static func == (a: Name, b: Name) -> Bool { a.text.utf8.elementsEqual(b.text.utf8) }

        func hash(into hasher: inout Hasher) {
            var text = text
            text.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
        }
    }

    /// Objects up to this size are searched from front to back.
    private static let searchedCount = 16

    private(set) var list: [JSONValue.Member] = []
    private var places: [Name: Int] = [:]

    mutating func set(_ name: String, _ value: JSONValue) {
        if let place = place(of: name) {
            list[place] = JSONValue.Member(name, value)
            return
        }
        list.append(JSONValue.Member(name, value))
        if list.count == Self.searchedCount {
            for (place, member) in list.enumerated() { places[Name(text: member.name)] = place }
        } else if list.count > Self.searchedCount {
            places[Name(text: name)] = list.count - 1
        }
    }

    private func place(of name: String) -> Int? {
        list.count < Self.searchedCount
            ? list.firstIndex { $0.name.utf8.elementsEqual(name.utf8) } : places[Name(text: name)]
    }
}
