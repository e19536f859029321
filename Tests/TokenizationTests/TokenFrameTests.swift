import JSON
import Testing
import Tokenization

/// What a checkpoint puts around prompts that are no chat.
struct TokenFrameTests {
    private static let begin = #"{"id": 300, "content": "<s>", "special": true}"#
    private static let end = #"{"id": 301, "content": "</s>", "special": true}"#

    private func tokenizer(
        _ postProcessor: String, configuration: String? = nil, changing: [String: JSONValue] = [:]
    ) throws -> Tokenizer {
        var changes = changing
        changes["post_processor"] = try JSONValue(parsing: Array(postProcessor.utf8))
        let json = Fixtures.small(added: "\(Self.begin), \(Self.end)", changing: changes)
        return try Tokenizer(parsing: Array(json.text.utf8), configuration: configuration.map { Array($0.utf8) })
    }

    private func ids(_ tokenizer: Tokenizer, _ text: String = "ab") throws -> [UInt32] {
        try tokenizer.encode(text, addingSpecialTokens: true)
    }

    private static func template(_ pieces: String) -> String {
        #"""
        {"type": "TemplateProcessing", "single": [\#(pieces)], "pair": [],
         "special_tokens": {"<s>": {"id": "<s>", "ids": [300]}, "</s>": {"id": "</s>", "ids": [301]}}}
        """#
    }

    private static let sequence = #"{"Sequence": {"id": "A", "type_id": 0}}"#
    private static let first = #"{"SpecialToken": {"id": "<s>", "type_id": 0}}"#
    private static let last = #"{"SpecialToken": {"id": "</s>", "type_id": 0}}"#

    @Test func aTemplatesTokensStandAroundAPromptThatAsksForThem() throws {
        let tokenizer = try tokenizer(Self.template("\(Self.first), \(Self.sequence), \(Self.last)"))
        let plain = try tokenizer.encode("ab")
        #expect(try ids(tokenizer) == [300] + plain + [301])
        #expect(try tokenizer.encode("ab", addingSpecialTokens: false) == plain)
        #expect(try ids(tokenizer, "") == [300, 301])
    }

    @Test func whatThePromptBeginsWithIsNotAddedAgain() throws {
        let tokenizer = try tokenizer(Self.template("\(Self.first), \(Self.sequence), \(Self.last)"))
        #expect(try ids(tokenizer, "<s>ab</s>") == ids(tokenizer))
    }

    @Test(arguments: [
        "null", #"{"type": "ByteLevel", "trim_offsets": false}"#, #"{"type": "Sequence", "processors": []}"#,
        #"{"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {}}"#,
    ])
    func postProcessorsWithoutTokensAddNone(json: String) throws {
        let tokenizer = try tokenizer(json)
        #expect(try ids(tokenizer) == tokenizer.encode("ab"))
    }

    @Test func processorsInARowAddOneAfterTheOther() throws {
        let inner = Self.template("\(Self.first), \(Self.sequence)")
        let outer = #"{"type": "RobertaProcessing", "cls": ["</s>", 301], "sep": ["<s>", 300], "trim_offsets": true}"#
        let tokenizer = try tokenizer(
            #"{"type": "Sequence", "processors": [{"type": "ByteLevel"}, \#(inner), \#(outer)]}"#)
        #expect(try ids(tokenizer) == [301, 300] + tokenizer.encode("ab") + [300])
    }

    @Test(arguments: [
        #"{"type": "TemplateProcessing", "single": []}"#, template(first), template("\(sequence), \(sequence)"),
        template(#"{"Sequence": {"id": "B"}}"#), template(#"{"SpecialToken": {"id": "<none>"}}, \#(sequence)"#),
        template(#"{"Other": 1}, \#(sequence)"#), #"{"type": "BertProcessing", "cls": ["x", 9999], "sep": ["y", 300]}"#,
        #"{"type": "RobertaProcessing", "cls": 1, "sep": 2}"#, #"{"type": "Other"}"#,
        #"{"type": "TemplateProcessing"}"#,
    ])
    func whatCannotBeFollowedIsRefusedByName(json: String) {
        let error = #expect(throws: TokenizerError.self) { try tokenizer(json) }
        #expect(error?.description.contains("post_processor") == true, "\(error?.description ?? "accepted")")
    }

    @Test func theConfigurationBesideItAddsOrLeavesOut() throws {
        let names = #""bos_token": "<s>", "eos_token": {"content": "</s>", "special": true}"#
        let both = try tokenizer("null", configuration: #"{"add_bos_token": true, "add_eos_token": true, \#(names)}"#)
        #expect(try ids(both) == [300] + both.encode("ab") + [301])
        let once = try tokenizer(
            Self.template("\(Self.first), \(Self.sequence)"), configuration: #"{"add_bos_token": true, \#(names)}"#)
        #expect(try ids(once) == [300] + once.encode("ab"))
        let none = try tokenizer(
            Self.template("\(Self.first), \(Self.sequence)"), configuration: #"{"add_bos_token": false, \#(names)}"#)
        #expect(try ids(none) == none.encode("ab"))
        #expect(none.notes.contains { $0.contains("add_bos_token") })
        let silent = try tokenizer("null", configuration: #"{"add_bos_token": null, \#(names)}"#)
        #expect(try ids(silent) == silent.encode("ab"))
    }

    @Test(arguments: [
        (#"{"add_bos_token": true}"#, "bos_token"), (#"{"add_bos_token": 1}"#, "add_bos_token"),
        (#"{"add_eos_token": true, "eos_token": "<none>"}"#, "eos_token"),
        (#"{"split_special_tokens": true}"#, "split_special_tokens"),
        ("{\n1}", "tokenizer_config.json, line 2, column 1"),
        ("[]", "tokenizer_config.json"),
    ])
    func aConfigurationThatCannotBeFollowedIsRefusedByName(json: String, name: String) {
        let error = #expect(throws: TokenizerError.self) { try tokenizer("null", configuration: json) }
        #expect(error?.description.contains(name) == true, "\(error?.description ?? "accepted")")
    }

    @Test func truncationAndPaddingCutAndFillNothing() throws {
        let cut = JSONValue.object([.init("direction", .string("Right")), .init("max_length", .number("1"))])
        let fill = JSONValue.object([.init("strategy", .string("BatchLongest")), .init("pad_id", .number("0"))])
        let tokenizer = try tokenizer(
            "null", changing: ["truncation": cut, "padding": fill, "of_tomorrow": .bool(true)])
        #expect(try tokenizer.encode("b b b").count == 5)
        #expect(tokenizer.notes.count == 3)
        for name in ["truncation", "padding", "of_tomorrow"] {
            #expect(tokenizer.notes.contains { $0.contains(name) }, "\(tokenizer.notes)")
        }
    }
}
