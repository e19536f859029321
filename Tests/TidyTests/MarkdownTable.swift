/// Tables and headings of our documents.
enum MarkdownTable {
    /// Cells of the rows of the first table under `heading`, without its title and its line; blanks around them are gone.
    static func rows(of text: String, under heading: String) -> [[String]] {
        let table = section(of: text, heading).drop { !$0.hasPrefix("|") }.prefix { $0.hasPrefix("|") }
        return table.dropFirst(2).map { row in
            row.dropFirst().dropLast().split(separator: "|", omittingEmptySubsequences: false).map(trimmed)
        }
    }

    /// Lines from a heading to the next one.
    static func section(of text: String, _ heading: String) -> [Substring] {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        guard let start = lines.firstIndex(where: { $0.hasPrefix("#") && $0.hasSuffix("# \(heading)") }) else {
            return []
        }
        return Array(lines[(start + 1)...].prefix { !$0.hasPrefix("#") })
    }

    static func trimmed(_ text: Substring) -> String {
        let text = text.drop { $0 == " " }
        return String(text[..<(text.lastIndex { $0 != " " }.map(text.index(after:)) ?? text.startIndex)])
    }

    /// What stands between backticks.
    static func quoted(_ text: some StringProtocol) -> [String] {
        let parts = text.split(separator: "`", omittingEmptySubsequences: false)
        return parts.indices.filter { $0 % 2 == 1 && $0 < parts.count - 1 }.map { String(parts[$0]) }
    }

    /// The anchors of the headings, as they are linked to.
    static func anchors(of text: String) -> Set<String> {
        Set(
            text.split(separator: "\n").filter { $0.hasPrefix("#") }.map { line in
                line.drop { $0 == "#" }.dropFirst().lowercased().compactMap { character -> Character? in
                    character == " "
                        ? "-" : character.isLetter || character.isNumber || "-_".contains(character) ? character : nil
                }.reduce(into: "") { $0.append($1) }
            })
    }

    /// The numbers that headings begin with: "7.1".
    static func sections(of text: String) -> Set<String> {
        Set(
            text.split(separator: "\n").filter { $0.hasPrefix("#") }.compactMap { line in
                line.firstMatch(of: #/^#+ (\d+(?:\.\d+)*)\.? /#).map { String($0.1) }
            })
    }
}
