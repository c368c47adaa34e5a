// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Discovery

/// Transactions as etcd's gateway spells them.
@Suite struct EtcdTableTests {
    @Test func aTransactionSaysWhatHoldsAndWhatIsDone() {
        let text = EtcdTable.transaction(
            [.absent("a"), .value("b", [49]), .revision("c", 7)], [.put("a", [50], lease: 3), .delete("b")],
            [.read("a"), .list(prefix: "a", first: nil), .list(prefix: "a", first: "aa")])
        #expect(
            text == """
                {"compare":[{"key":"YQ==","target":"VERSION","version":"0"},\
                {"key":"Yg==","target":"VALUE","value":"MQ=="},\
                {"key":"Yw==","target":"MOD","mod_revision":"7"}],\
                "success":[{"request_put":{"key":"YQ==","value":"Mg==","lease":"3"}},\
                {"request_delete_range":{"key":"Yg=="}}],\
                "failure":[{"request_range":{"key":"YQ=="}},\
                {"request_range":{"key":"YQ==","range_end":"Yg=="}},\
                {"request_range":{"key":"YWE=","range_end":"Yg=="}}]}
                """)
    }

    @Test func anAnswerHasWhatWasReadInOrder() throws {
        let text = """
            {"header":{"revision":"9"},"succeeded":true,"responses":[
            {"response_put":{"header":{"revision":"9"}}},
            {"response_range":{"kvs":[{"key":"YQ==","value":"MQ==","mod_revision":"5"}],"count":"1"}},
            {"response_range":{"header":{}}},
            {"response_range":{"kvs":[{"key":"Yg==","mod_revision":"6"}]}}]}
            """
        let answer = try #require(EtcdTable.answer(Array(text.utf8)))
        #expect(answer.succeeded)
        #expect(
            answer.entries == [
                EtcdTable.Entry(key: "a", value: [49], revision: 5), EtcdTable.Entry(key: "b", value: [], revision: 6),
            ])
        // What is false, 0 or empty is left out.
        let refused = try #require(EtcdTable.answer(Array("{\"header\":{}}".utf8)))
        #expect(!refused.succeeded && refused.entries.isEmpty)
    }

    @Test(arguments: [
        "", "[]", "{}", "{\"header\":{},\"responses\":[{\"response_range\":{\"kvs\":[{\"key\":\"?\"}]}}]}",
        "{\"header\":{},\"responses\":[{\"response_range\":{\"kvs\":[5]}}]}",
    ])
    func whatIsNoAnswerIsNotRead(_ text: String) { #expect(EtcdTable.answer(Array(text.utf8)) == nil) }
}
