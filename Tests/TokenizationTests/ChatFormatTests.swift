import JSON
import Testing
import Tokenization

@Suite struct ChatFormatTests {
    @Test func theShortestConversation() throws {
        let text = ChatFormat.render(messages: [ChatMessage(.user, "What is MLA?")])
        #expect(
            text == "<role>SYSTEM</role>detailed thinking off<|role_end|>"
                + "<role>HUMAN</role>What is MLA?<|role_end|><role>ASSISTANT</role>")
        let tokenizer = try #require(Fixtures.golden)
        let ids = try tokenizer.encode(text)
        #expect(ids.filter { $0 == 4087 }.count == 2 && ids.filter { $0 == 4088 }.count == 3)
        #expect(tokenizer.decode(ids) == text)
    }

    @Test func systemTextAndThinking() {
        let messages = [
            ChatMessage(.system, "Be brief."), ChatMessage(.user, "Hi"), ChatMessage(.system, "Now in verse."),
        ]
        #expect(
            ChatFormat.render(messages: messages, thinking: true, addGenerationPrompt: false)
                == "<role>SYSTEM</role>Be brief.\ndetailed thinking on<|role_end|><role>HUMAN</role>Hi<|role_end|>"
                + "<role>SYSTEM</role>Now in verse.<|role_end|>")
        #expect(
            ChatFormat.render(messages: [])
                == "<role>SYSTEM</role>detailed thinking off<|role_end|><role>ASSISTANT</role>")
    }

    @Test func reasoningStaysOnlyAfterTheLastQuestion() {
        let messages = [
            ChatMessage(.user, "One?"), ChatMessage(.assistant, "<think>\nold\n</think>\n\nFirst."),
            ChatMessage(.user, "Two?"), ChatMessage(.assistant, "\n<think>\nnew\n</think>\n\nSecond."),
            ChatMessage(.tool, "42"), ChatMessage(.assistant, "\nThird.", reasoning: "\nkept\n"),
        ]
        #expect(
            ChatFormat.render(messages: messages, addGenerationPrompt: false)
                == "<role>SYSTEM</role>detailed thinking off<|role_end|><role>HUMAN</role>One?<|role_end|>"
                + "<role>ASSISTANT</role>First.<|role_end|><role>HUMAN</role>Two?<|role_end|>"
                + "<role>ASSISTANT</role>\n<think>\nnew\n</think>\n\nSecond.<|role_end|>"
                + "<role>OBSERVATION</role>\n<tool_response>\n42\n</tool_response><|role_end|>"
                + "<role>ASSISTANT</role>\n<think>\nkept\n</think>\n\nThird.<|role_end|>")
    }

    @Test func toolsCallsAndResults() throws {
        let tool = try JSONValue(parsing: Array(#"{"type":"function","function":{"name":"add"}}"#.utf8)).text
        let call = ChatMessage.ToolCall(name: "add", arguments: #"{"a": 1}"#)
        let messages = [
            ChatMessage(.system, "S"), ChatMessage(.user, "Q"), ChatMessage(.assistant, "", toolCalls: [call, call]),
            ChatMessage(.tool, "1"), ChatMessage(.tool, "2"), ChatMessage(.assistant, "So", toolCalls: [call]),
        ]
        let calling = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>"
        #expect(
            ChatFormat.render(messages: messages, tools: [tool, tool])
                == "<role>SYSTEM</role>S\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
                + "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
                + "{\"type\": \"function\", \"function\": {\"name\": \"add\"}}\n"
                + "{\"type\": \"function\", \"function\": {\"name\": \"add\"}}\n</tools>\n\n"
                + "For each function call, return a json object with function name and arguments within "
                + "<tool_call></tool_call> XML tags:\n<tool_call>\n"
                + "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>\n"
                + "detailed thinking off<|role_end|><role>HUMAN</role>Q<|role_end|>"
                + "<role>ASSISTANT</role>\(calling)\n\(calling)<|role_end|><role>OBSERVATION</role>"
                + "\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response><|role_end|>"
                + "<role>ASSISTANT</role>So\n\(calling)<|role_end|><role>ASSISTANT</role>")
    }

    @Test func toolResultsInAUserTurnAreNoQuestion() {
        let messages = [
            ChatMessage(.user, "Q"), ChatMessage(.assistant, "A", reasoning: "r"),
            ChatMessage(.user, "<tool_response>\n1\n</tool_response>"),
        ]
        #expect(ChatFormat.render(messages: messages).contains("<think>\nr\n</think>\n\nA<|role_end|>"))
    }
}
