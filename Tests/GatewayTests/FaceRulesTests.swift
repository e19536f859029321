import Foundation
import GatewayService
import Observability
import Testing

@Suite struct FaceRulesTests {
    private func document() throws -> [String: Any] {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Services/Gateway/Library/openapi.json")
        return try #require(JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
    }

    @Test func theDocumentHasEveryPathAndMethod() throws {
        let paths = try #require(try document()["paths"] as? [String: [String: Any]])
        #expect(Set(paths.keys) == Set(Endpoint.allCases.map(\.rawValue)))
        for endpoint in Endpoint.allCases {
            let methods = Set((paths[endpoint.rawValue] ?? [:]).keys.map { $0.uppercased() })
            #expect(methods == Set(endpoint.methods), "\(endpoint.rawValue)")
        }
    }

    /// What the document lists is known to the parser.
    @Test func theDocumentHasNoFieldOfItsOwn() throws {
        let components = try #require(try document()["components"] as? [String: Any])
        let schemas = try #require(components["schemas"] as? [String: [String: Any]])
        for (name, base, kind) in [
            ("CompletionRequest", "\"prompt\":\"x\"", Body.completions),
            ("ChatRequest", "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]", Body.chat),
            ("GenerateRequest", "\"text\":\"x\"", Body.generate),
        ] {
            let fields = try #require(schemas[name]?["properties"] as? [String: Any])
            for field in fields.keys where !base.hasPrefix("\"\(field)\"") {
                do throws(APIError) { _ = try kind.parse(Array("{\(base),\"\(field)\":{\"?\":[]}}".utf8)) } catch {
                    let isUnknown = error.code == "unknown_parameter" && error.parameter == field
                    #expect(!isUnknown, "\(name).\(field)")
                }
            }
        }
    }

    @Test func paths() {
        #expect(Endpoint(path: "/v1/models") == .models)
        #expect(Endpoint(path: "/v1/models/a/b") == .model)
        #expect(Endpoint(path: "/v1/models/") == nil)
        #expect(Endpoint(path: "/v1/models/{model}") == .model)
        #expect(Endpoint(path: "/v1/chat/completions") == .chat)
        #expect(Endpoint(path: "/v1/Completions") == nil)
        #expect(Endpoint(path: "") == nil)
    }

    @Test func keysAreParsedAndCompared() throws {
        var keys = try APIKeys(parsing: "# comment\n\nsecret-one\nsecret-two 1\r\n", limit: 2)
        #expect(keys.areNeeded)
        for wrong in [
            nil, "", "secret-one", "Bearer", "Bearer ", "Bearer secret", "Basic secret-one", "Bearer secret-one ",
        ] {
            let error = #expect(throws: APIError.self) { _ = try keys.enter(authorization: wrong) }
            #expect(error?.status == 401, "\(wrong ?? "nil")")
        }
        let one = try keys.enter(authorization: "Bearer secret-one")
        _ = try keys.enter(authorization: "bearer secret-one")
        let error = #expect(throws: APIError.self) { _ = try keys.enter(authorization: "Bearer secret-one") }
        #expect(error?.status == 429 && error?.retryAfterSeconds == 1)
        keys.leave(one)
        _ = try keys.enter(authorization: "Bearer secret-one")
        _ = try keys.enter(authorization: "Bearer secret-two")
        #expect(throws: APIError.self) { _ = try keys.enter(authorization: "Bearer secret-two") }
        var none = APIKeys()
        #expect(try none.enter(authorization: nil) == nil)
    }

    @Test func filesOfKeysThatCannotBeUsed() {
        for text in [
            "", "# only\n", "short", "long-enough 0", "long-enough x", "long-enough 1 more", "same-key-1\nsame-key-1",
        ] { #expect(throws: APIKeysError.self, "\(text)") { _ = try APIKeys(parsing: text, limit: 1) } }
    }
}

@Suite struct TraceTests {
    @Test func traceParents() {
        let id = "0af7651916cd43dd8448eb211c80319c"
        let trace = TraceContext(traceparent: "00-\(id)-b7ad6b7169203331-01")
        #expect(trace?.high == 0x0af7_6519_16cd_43dd && trace?.low == 0x8448_eb21_1c80_319c)
        #expect(trace?.isSampled == true && trace?.id == id)
        #expect(trace?.traceparent(span: 7) == "00-\(id)-0000000000000007-01")
        let unsampled = TraceContext(traceparent: "01-\(id)-b7ad6b7169203331-00-more")
        #expect(unsampled?.id == id && unsampled?.isSampled == false)
        for wrong in [
            "", "00", "00-\(id)-b7ad6b7169203331", "ff-\(id)-b7ad6b7169203331-01", "00-\(id)-0000000000000000-01",
            "00-\(String(repeating: "0", count: 32))-b7ad6b7169203331-01", "00-\(id.uppercased())-b7ad6b7169203331-01",
            "00-\(id)-b7ad6b7169203331-01-more", "00-\(id)0-b7ad6b7169203331-01",
            "00-+\(id.dropFirst())-b7ad6b7169203331-01",
        ] { #expect(TraceContext(traceparent: wrong) == nil, "\(wrong)") }
    }
}
