package conformance

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/nsgd/nsgd/test/conformance/reference"
)

const (
	// NSGD_CONFORMANCE_SEED repeats a run; NSGD_CONFORMANCE_POLICIES takes more policies
	// and, without a seed, new ones.
	seedEnv     = "NSGD_CONFORMANCE_SEED"
	policiesEnv = "NSGD_CONFORMANCE_POLICIES"

	questionsPerPolicy = 500
)

// 200 random policies with 500 questions each: the built nsgctl against the second opinion.
func TestNsgctlVerifyEqualsTheReferenceOnRandomQuestions(t *testing.T) {
	policies, seed := randomSize(t)
	var questions, allowed, byUser, without atomic.Int64
	t.Run("policies", func(t *testing.T) {
		for i := range policies {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				g := generate(rand.New(rand.NewPCG(seed, uint64(i))), large)
				for _, a := range compareRandom(t, g) {
					questions.Add(1)
					switch {
					case a.RuleName == "":
						without.Add(1)
					case a.RuleName[0] == 's':
						byUser.Add(1)
					}
					if a.Access == "Allow" {
						allowed.Add(1)
					}
				}
			})
		}
	})
	t.Logf("%s=%d: %d questions of %d policies: %d allowed, %d decided by a user rule, %d without an NSG",
		seedEnv, seed, questions.Load(), policies, allowed.Load(), byUser.Load(), without.Load())
	// A generator whose questions all have the same answer would prove nothing.
	if n := questions.Load(); allowed.Load() < n/10 || allowed.Load() > n*9/10 || byUser.Load() < n/5 {
		t.Error("the questions are too much alike")
	}
}

func randomSize(t *testing.T) (policies int, seed uint64) {
	t.Helper()
	policies, seed = 200, 1
	if testing.Short() {
		policies = 20
	}
	if text := os.Getenv(policiesEnv); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s=%q: want a number of policies", policiesEnv, text)
		}
		policies, seed = n, rand.Uint64()
	}
	if text := os.Getenv(seedEnv); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s=%q: want a number", seedEnv, text)
		}
		seed = n
	}
	return policies, seed
}

// compareRandom asks nsgctl and the reference about a policy and returns nsgctl's answers.
func compareRandom(t *testing.T, g *generated) []Answered {
	t.Helper()
	document, tagFile := g.document(), g.tagFile()
	p, err := reference.Read(document, []byte(tagFile))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	policy, tags := filepath.Join(dir, "policy.json"), filepath.Join(dir, "tags.json")
	write(t, policy, document)
	write(t, tags, []byte(tagFile))
	var questions []reference.Question
	var requests []byte
	for range questionsPerPolicy {
		q := g.question()
		questions = append(questions, q)
		requests = append(requests, requestOf(&q)...)
	}
	answers := verify(t, requests, append([]string{"verify", "-o", "json", "--requests", "-"}, sourceFlags(policy, tags)...)...)
	if len(answers) != len(questions) {
		t.Fatalf("%d answers to %d questions", len(answers), len(questions))
	}
	for i, q := range questions {
		want, err := p.Verify(q)
		if err != nil {
			t.Fatal(err)
		}
		got := reference.Answer{Access: answers[i].Access, RuleName: answers[i].RuleName, NetworkSecurityGroup: answers[i].NetworkSecurityGroup}
		if got != want {
			t.Errorf("%+v:\nnsgctl    %+v\nreference %+v", q, answers[i], want)
		}
	}
	if t.Failed() {
		t.Logf("the policy:\n%s", document)
	}
	return answers
}

func requestOf(q *reference.Question) []byte {
	line, err := json.Marshal(map[string]string{
		"targetNicResourceId": q.NIC, "direction": q.Direction, "protocol": q.Protocol,
		"localIPAddress": q.LocalAddress, "localPort": q.LocalPort,
		"remoteIPAddress": q.RemoteAddress, "remotePort": q.RemotePort,
	})
	if err != nil {
		panic(fmt.Sprint(q, err)) // strings can be written
	}
	return append(line, '\n')
}
