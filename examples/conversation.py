#!/usr/bin/env python3
"""A conversation through the openai package: examples/conversation.py [URL]"""

import sys

import openai


def main(url="http://127.0.0.1:8000"):
    with openai.OpenAI(base_url=url + "/v1", api_key="none") as client:
        model = client.models.list().data[0].id
        turns = []
        for question in ["Who wrote Emma?", "And when?"]:
            turns.append({"role": "user", "content": question})
            print("user:", question)
            stream = client.chat.completions.create(
                model=model, messages=turns, max_tokens=48, temperature=0, stream=True,
                stream_options={"include_usage": True})
            answer = ""
            print("assistant: ", end="")
            for event in stream:
                for choice in event.choices:
                    answer += choice.delta.content or ""
                    print(choice.delta.content or "", end="", flush=True)
                if event.usage:
                    print(f"\n({event.usage.prompt_tokens} + {event.usage.completion_tokens} tokens)")
            turns.append({"role": "assistant", "content": answer})


if __name__ == "__main__":
    main(*sys.argv[1:])
