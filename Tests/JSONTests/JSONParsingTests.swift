import JSON
import TestSupport
import Testing

struct JSONParsingTests {
    private func parse(_ text: String, allowsNonFinite: Bool = false) throws(JSONError) -> JSONValue {
        try JSONValue(parsing: Array(text.utf8), allowsNonFinite: allowsNonFinite)
    }

    private func refusal(_ text: String) -> JSONError? {
        do throws(JSONError) {
            _ = try parse(text)
            return nil
        } catch { return error }
    }

    @Test(arguments: [
        (#"{"a": 1,"# + "\n" + #"  "b" 2}"#, 2, 7, "2}"), ("[1, 2\n\n3]", 3, 1, "3]"), ("", 1, 1, ""),
        ("{\"é\": tru}", 1, 7, "tru}"), ("{\"a\": 1,}", 1, 9, "}"), ("[1,\r\n2,\r\n]", 3, 1, "]"),
        ("{'a': 1}", 1, 2, "'a': 1}"), ("{\"a\": 1} // note", 1, 10, "// note"), ("[NaN]", 1, 2, "NaN]"),
        ("[-Infinity]", 1, 2, "-Infinity]"), ("[\"abc", 1, 2, "\"abc"), ("{\"a\":", 1, 6, ""), ("01", 1, 2, "1"),
        ("[\"\\ud800\"]", 1, 3, "\\ud800\"]"), ("[1,\n", 2, 1, ""), ("[1\n", 2, 1, ""),
        ("{\"a\": \n\u{1}", 2, 1, "\\u{1}"),
    ])
    func aBrokenTextIsNamedWithLineColumnAndWhatStandsThere(
        text: String, line: Int, column: Int, excerpt: String
    ) throws {
        let error = try #require(refusal(text))
        #expect((error.line, error.column) == (line, column), "\(text.debugDescription): \(error)")
        #expect(error.excerpt == excerpt, "\(text.debugDescription): \(error)")
        #expect(error.description.hasPrefix("line \(line), column \(column): "))
        #expect(error.description.hasSuffix(excerpt.isEmpty ? "the text ends there" : excerpt))
    }

    @Test(arguments: [
        "nul", "{", "[1,]", "1 2", "\"\\udc00\"", "\"\\x\"", "\"\n\"", "1.", "-", "1e", "+1", ".5", "0x1",
        "\"\\u00g0\"",
        "\"\\u00", "{1: 2}", "truefalse", "\u{0}", "--1", "[1 2]",
    ])
    func whatIsNoJSONIsRefused(text: String) { #expect(refusal(text) != nil) }

    @Test func bytesThatAreNotUTF8AreRefused() {
        for bytes: [UInt8] in [[0x22, 0xC3, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22], [0x22, 0xFF, 0x22], [0x80]] {
            #expect(throws: JSONError.self) { try JSONValue(parsing: bytes) }
        }
        #expect(throws: JSONError.self) { try JSONValue(parsing: [0xFF, 0xFE, 0x7B, 0x00, 0x7D, 0x00]) }
    }

    @Test func aByteOrderMarkInFrontIsSkipped() throws {
        #expect(try JSONValue(parsing: [0xEF, 0xBB, 0xBF] + Array("[1]".utf8)) == .array([.number("1")]))
    }

    @Test func aRepeatedNameCountsAsItStandsLast() throws {
        #expect(try parse(#"{"a": 1, "b": 2, "a": 3}"#).text == #"{"a": 3, "b": 2}"#)
        // Large objects find their names by a table.
        let many = (0..<100).map { "\"k\($0)\": 0" }.joined(separator: ", ")
        let value = try parse("{\(many), \"k7\": 1, \"k99\": 2, \"k15\": 3, \"new\": 4, \"new\": 5}")
        #expect(value.text.split(separator: ":").count == 102)
        #expect(["k7", "k99", "k15", "new", "k8"].map { value[$0]?.integer } == [1, 2, 3, 5, 0])
    }

    @Test func namesThatAreEqualOnlyAfterNormalisationStayApart() throws {
        let value = try parse("{\"e\u{301}\": 1, \"\u{e9}\": 2}")
        #expect(value["\u{e9}"]?.integer == 2)
        #expect(value["e\u{301}"]?.integer == 1)
    }

    @Test func nonFiniteNumbersAreTakenOnlyWhenAskedFor() throws {
        let text = "[NaN, Infinity, -Infinity, -1]"
        #expect(
            try parse(text, allowsNonFinite: true)
                == .array([.nonFinite("NaN"), .nonFinite("Infinity"), .nonFinite("-Infinity"), .number("-1")]))
        #expect(try parse(text, allowsNonFinite: true).text == text)
        #expect(throws: JSONError.self) { try parse(text) }
        for broken in ["[nan]", "[-NaN]", "[Infinit]", "[-Inf]", "[+Infinity]"] {
            #expect(throws: JSONError.self, "\(broken)") { try parse(broken, allowsNonFinite: true) }
        }
    }

    @Test func numbersKeepTheirSpellingAndAreReadWithoutATrap() throws {
        let cases: [(String, Double?, Int?)] = [
            ("-0", 0, 0), ("1.50", 1.5, nil), ("1e2", 100, 100), ("1.0", 1, 1), ("1e400", nil, nil),
            ("-1e400", nil, nil), ("1e-400", 0, 0), ("9223372036854775807", 0x1p63, Int.max),
            ("9223372036854775808", 0x1p63, nil), ("1e300", 1e300, nil),
            ("18446744073709551616", 18_446_744_073_709_551_616, nil), (String(repeating: "9", count: 500), nil, nil),
        ]
        for (text, double, integer) in cases {
            let value = try parse(text)
            #expect(value.text == text)
            #expect(value.double == double, "\(text)")
            #expect(value.integer == integer, "\(text)")
        }
        #expect(JSONValue.string("1").integer == nil && JSONValue.nonFinite("NaN").double == nil)
    }

    @Test func deepNestingIsAnError() {
        for text in [String(repeating: "[", count: 100_000), String(repeating: "{\"a\":", count: 100_000)] {
            #expect(refusal(text)?.reason.contains("nested") == true)
        }
        let allowed = String(repeating: "[", count: 100) + String(repeating: "]", count: 100)
        #expect(refusal(allowed) == nil)
    }

    @Test func orderAndEscapesAreKept() throws {
        let text = #"{"z": [1.50, -2e+3, true, null], "a": "é\n\"\\\u0001\/\ud83d\ude00"}"#
        let value = try parse(text)
        #expect(value.text == "{\"z\": [1.50, -2e+3, true, null], \"a\": \"é\\n\\\"\\\\\\u0001/\u{1F600}\"}")
        #expect(try parse(value.indentedText) == value)
        #expect(
            try parse(#"{"a": [1, {}], "b": []}"#).indentedText
                == "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}")
    }

    @Test(arguments: UInt64(0)..<20)
    func mutatedTextsNeverTrapAndWhatIsAcceptedComesBack(seed: UInt64) throws {
        let original = Array(
            #"{"a": [1.5e-3, -0, "x\u00e9\ud83d\ude00\n", {"b": null, "b": true}], "c": Infinity}"#.utf8)
        let alphabet = Array(#"{}[]",:0123456789-+.eE\untrflsINaN "#.utf8) + [0, 0x0A, 0x80, 0xC3, 0xFF]
        var random = SeededRandom(seed: seed)
        for _ in 0..<500 {
            var bytes = original
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let place = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: bytes[place] = alphabet.randomElement(using: &random) ?? 0
                case 1: bytes.insert(alphabet.randomElement(using: &random) ?? 0, at: place)
                default: bytes.removeSubrange(place...)
                }
                if bytes.isEmpty { bytes = original }
            }
            guard let value = try? JSONValue(parsing: bytes, allowsNonFinite: true) else { continue }
            #expect(try parse(value.text, allowsNonFinite: true) == value, "seed \(seed)")
        }
    }
}
