package control

import (
	"errors"
	"net/http"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
)

// Error is a refusal, and the JSON body of an HTTP answer that is not 200.
type Error struct {
	// Status is the HTTP status; not part of the body.
	Status  int    `json:"-"`
	Message string `json:"error"`
	// Faults are set when a policy was refused for what its documents say.
	Faults []Fault `json:"faults,omitempty"`
}

// Error is the message; it lists the faults where there are any.
func (e *Error) Error() string { return e.Message }

// PolicyError is why policy documents can't be enforced.
type PolicyError struct {
	// Faults are what Azure would refuse.
	Faults ruleset.Faults
	// Unresolved are template expressions: they may be valid, but can't be enforced.
	Unresolved ruleset.Faults
}

// Error lists every fault, one a line.
func (e *PolicyError) Error() string {
	var lines []string
	for _, list := range []ruleset.Faults{e.Faults, e.Unresolved} {
		for i := range list {
			lines = append(lines, list[i].Error())
		}
	}
	return strings.Join(lines, "\n")
}

// asError gives any error the form of an answer.
func asError(err error, status int) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	e = &Error{Status: status, Message: err.Error()}
	var policy *PolicyError
	if errors.As(err, &policy) {
		e.Faults = append(Faults(policy.Faults), Faults(policy.Unresolved)...)
	}
	return e
}

func badRequest(err error) *Error { return asError(err, http.StatusBadRequest) }
