import Foundation
import GatewayService
import JSON
import Testing
import WireProtocol

/// What becomes of the fields of a request: what means something, what is accepted because it changes nothing, and what is
/// refused because it would.
@Suite struct FieldTests {
    /// A body of each kind with a place for one more field at the top, and where fields of each table stand in it.
    private static let places: [(table: FieldTable, kind: Body, before: String, after: String)] = [
        (.completions, .completions, "{\"prompt\":\"x\",", "}"),
        (.chat, .chat, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],", "}"),
        (
            .streamOptions, .chat,
            "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":true,\"stream_options\":{", "}}"
        ),
        (
            .templateOptions, .chat,
            "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"chat_template_kwargs\":{", "}}"
        ), (.message, .chat, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\",", "}]}"),
        (
            .part, .chat, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\",", "}]}]}"
        ), (.generate, .generate, "{\"text\":\"x\",", "}"),
        (.samplingParameters, .generate, "{\"text\":\"x\",\"sampling_params\":{", "}}"),
    ]

    private func parse(
        _ place: (table: FieldTable, kind: Body, before: String, after: String), _ field: String, _ value: String
    ) throws(APIError) -> CompletionJob {
        try place.kind.parse(Array("\(place.before)\"\(field)\":\(value)\(place.after)".utf8))
    }

    private static let oddValues = [
        "null", "true", "false", "0", "-1.5e3", "\"\"", "\"words\"", "[]", "[[{}]]", "{\"a\":{}}",
    ]

    @Test func whatChangesNothingIsAcceptedWhateverItHoldsAndCounted() throws {
        for place in Self.places {
            for (field, rule) in place.table.rules where rule == .harmless {
                for value in Self.oddValues {
                    let job = try parse(place, field, value)
                    #expect(job.fields.harmless == (value == "null" ? 0 : 1), "\(place.table.schema).\(field) \(value)")
                }
            }
        }
    }

    @Test func whatAsksForTheUsualIsAcceptedAndAllElseIsRefusedByNameWithWhatIsServed() throws {
        for place in Self.places {
            for (field, rule) in place.table.rules {
                guard case .usual(let values, let instead) = rule else { continue }
                for value in values {
                    let job = try parse(place, field, value.text)
                    #expect(job.fields.usual == 1, "\(place.table.schema).\(field) \(value.text)")
                }
                let error = #expect(throws: APIError.self, "\(place.table.schema).\(field)") {
                    _ = try parse(place, field, "{\"odd\":[7]}")
                }
                #expect(error?.parameter?.hasSuffix(field) == true && error?.message.contains(instead) == true)
                #expect(error?.status == 400 && error?.code == APIError.unsupportedField)
            }
        }
    }

    @Test func whatWouldChangeTheAnswerIsRefusedByNameWithWhatIsServed() throws {
        for place in Self.places {
            for (field, rule) in place.table.rules {
                guard case .refused(let instead) = rule else { continue }
                for value in ["true", "{\"a\":1}", "[\"x\"]", "\"x\"", "3"] {
                    let error = #expect(throws: APIError.self, "\(place.table.schema).\(field)") {
                        _ = try parse(place, field, value)
                    }
                    #expect(error?.parameter?.hasSuffix(field) == true && error?.message.contains(instead) == true)
                }
                _ = try parse(place, field, "null")
            }
        }
    }

    @Test func whatNobodyKnowsIsRefusedWhereItMightMeanSomething() throws {
        for place in Self.places {
            if case .refused = place.table.others {
                let error = #expect(throws: APIError.self) { _ = try parse(place, "tempreature", "1") }
                #expect(error?.code == APIError.unknownField && error?.message.contains("tempreature") == true)
            } else {
                #expect(try parse(place, "anything", "{\"at\":[\"all\"]}").fields.harmless == 1)
            }
        }
    }

    /// `openapi.json` names what is accepted, with its class and its values, and nothing else.
    @Test func theDocumentIsTheTable() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Services/Gateway/Library/openapi.json")
        let document = try JSONValue(parsing: Array(Data(contentsOf: file)))
        let schemas = try #require(document["components"]?["schemas"])
        for table in FieldTable.all {
            let schema = try #require(schemas[table.schema], "\(table.schema)")
            guard case .object(let properties) = schema["properties"] else {
                Issue.record("\(table.schema) has no properties")
                continue
            }
            // Where others are accepted, what is not must be told.
            var accepted = table.rules.filter {
                if case .refused = $0.value { table.others == .harmless } else { true }
            }
            for property in properties {
                let described = property.value["x-ironling-field"]
                switch accepted.removeValue(forKey: property.name) {
                case .read: #expect(described == .string("read"), "\(table.schema).\(property.name)")
                case .harmless: #expect(described == .string("harmless"), "\(table.schema).\(property.name)")
                case .usual(let values, _):
                    #expect(described == .string("usual"), "\(table.schema).\(property.name)")
                    #expect(property.value["enum"] == .array(values + [.null]), "\(table.schema).\(property.name)")
                case .refused:
                    #expect(described == .string("refused") && property.value["type"] == .string("null"))
                case nil: Issue.record("\(table.schema).\(property.name) is in the document and not accepted")
                }
            }
            #expect(accepted.isEmpty, "\(table.schema) lacks \(accepted.keys.sorted())")
            let takesOthers = schema["additionalProperties"] != .bool(false)
            #expect(takesOthers == (table.others == .harmless), "\(table.schema)")
        }
    }

    /// Requests as clients send them without being asked to.
    @Test(arguments: [
        "message-name", "message-extra-fields", "chat-template-kwargs", "content-part-cache-control",
        "harmless-defaults", "duplicate-key", "no-max-tokens",
    ])
    func requestsOfRealClientsAreAccepted(name: String) throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../Fixtures/field/\(name).json")
        let job = try CompletionJob.chat(Array(Data(contentsOf: file)))
        #expect(job.maximumTokens == (name == "no-max-tokens" ? nil : name == "duplicate-key" ? 3 : 8))
        #expect(job.request.stopTexts.isEmpty && !job.thinks)
    }

    @Test func aNameThatComesAgainCountsTheLastTime() throws {
        let body = """
            {"messages":[{"role":"robot","role":"user","content":"a","content":"b"}],"max_tokens":5,"n":2,"n":1,
            "max_tokens":3,"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}
            """
        let job = try CompletionJob.chat(Array(body.utf8))
        #expect(job.prompts == [.chat([GenerateRequest.ChatTurn(role: "user", content: "b")])])
        #expect(job.maximumTokens == 3 && job.choicesPerPrompt == 1 && !job.includesUsage)
    }

    private func chat(_ messages: String, _ more: String = "") throws(APIError) -> CompletionJob {
        try CompletionJob.chat(Array("{\"messages\":[\(messages)]\(more)}".utf8))
    }

    @Test func reasoningGoesWhereTheChatFormatLooksForIt() throws {
        let job = try chat(
            """
            {"role":"user","content":"Q","reasoning_content":"none of it"},
            {"role":"assistant","content":"A","reasoning_content":"R"},
            {"role":"assistant","content":"B","reasoning":"S"},{"role":"assistant","content":"C","reasoning_content":""}
            """)
        let wanted = ["Q", "<think>\nR\n</think>\n\nA", "<think>\nS\n</think>\n\nB", "C"]
        guard case .chat(let turns) = job.prompts.first else {
            Issue.record("no conversation")
            return
        }
        #expect(turns.map(\.content) == wanted)
    }

    @Test func thinkingIsAskedForByAnyOfItsNames() throws {
        let user = "{\"role\":\"user\",\"content\":\"x\"}"
        for (more, thinks) in [
            ("", false), (",\"enable_thinking\":true", true), (",\"chat_template_kwargs\":{\"thinking\":true}", true),
            (",\"chat_template_kwargs\":{\"enable_thinking\":true,\"else\":1},\"enable_thinking\":true", true),
            (",\"chat_template_kwargs\":{}", false),
        ] { #expect(try chat(user, more).thinks == thinks, "\(more)") }
        for more in [
            ",\"enable_thinking\":1", ",\"chat_template_kwargs\":{\"thinking\":\"on\"}", ",\"chat_template_kwargs\":1",
            ",\"enable_thinking\":false,\"chat_template_kwargs\":{\"thinking\":true}",
        ] { #expect(throws: APIError.self, "\(more)") { _ = try chat(user, more) } }
    }

    @Test func numbersAndObjectsSayTheSameHoweverTheyAreSpelled() throws {
        for (one, two, same) in [
            ("1", "1.0", true), ("1", "1e0", true), ("1", "2", false),
            ("{\"a\":1,\"b\":[]}", "{\"b\":[],\"a\":1.0}", true),
            ("{}", "[]", false), ("[1]", "[1,1]", false), ("1e999", "2e999", false), ("true", "\"true\"", false),
        ] {
            let values = (try JSONValue(parsing: Array(one.utf8)), try JSONValue(parsing: Array(two.utf8)))
            #expect(values.0.says(values.1) == same, "\(one) \(two)")
        }
    }
}
