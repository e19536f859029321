import Foundation
import JSON
import Testing

struct JSONTextTests {
    /// However it is asked for, a text reads back as itself.
    @Test(arguments: [true, false])
    func quotedTextReadsBackAsItself(escapesSeparators: Bool) throws {
        for scalar in (0..<0x3000).compactMap({ Unicode.Scalar($0) }) {
            let text = "a\(Character(scalar))b"
            let json = JSONText.quoted(text, escapesSeparators: escapesSeparators)
            guard case .string(let back) = try JSONValue(parsing: Array(json.utf8)) else { return #expect(Bool(false)) }
            #expect(back.unicodeScalars.elementsEqual(text.unicodeScalars), "\(scalar.value)")
        }
    }

    @Test func separatorsOfLinesAreEscapedUnlessTheyMayStay() {
        #expect(JSONText.quoted("\u{85}\u{2028}\u{2029}\u{2027}") == "\"\\u0085\\u2028\\u2029\u{2027}\"")
        #expect(JSONText.quoted("\u{85}\u{2028}\n", escapesSeparators: false) == "\"\u{85}\u{2028}\\n\"")
        #expect(JSONText.quoted("\u{8}\u{C}\u{1F}\"\\") == "\"\\b\\f\\u001f\\\"\\\\\"")
    }
}
