// Package secret has the type in which tokens, codes and client secrets
// travel through the program. Nothing that prints, logs, marshals or compares
// by accident gets at what is inside:
//
//	token := secret.New("eyJ…")
//	fmt.Printf("%v %+v %#v", token, token, token) // [secret] [secret] [secret]
//	json.Marshal(token)                           // an error
//	request.Header.Set("Authorization", "Bearer "+token.Reveal())
//
// A struct that has one as a field, exported or not, is as safe as it is.
package secret

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// String is a text that must not be seen. The zero value is the empty text.
//
// The text is inside of a function: fmt calls no methods of unexported fields,
// and would print a string there, but of a function it prints the address. A
// function also keeps String, and each struct that has one, from being compared
// with == or used as a key.
type String struct{ reveal func() string }

// New makes a String of a text.
func New(s string) String {
	if s == "" {
		return String{}
	}
	return String{func() string { return s }}
}

// Reveal gives the text, for the one place where it is needed.
func (s String) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// Empty says whether there is no text.
func (s String) Empty() bool { return s.reveal == nil }

// Equal compares in a time that depends on the lengths alone.
func (s String) Equal(other String) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// Format answers every verb of fmt.
func (s String) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[secret]") }

// LogValue answers log/slog.
func (s String) LogValue() slog.Value { return slog.StringValue("[secret]") }

var errMarshal = errors.New("a secret cannot be marshalled")

// The encoders of the standard library, and those that follow them, get an
// error: a secret that is left out without a word would be missed later.
func (s String) MarshalJSON() ([]byte, error)   { return nil, errMarshal }
func (s String) MarshalText() ([]byte, error)   { return nil, errMarshal }
func (s String) MarshalBinary() ([]byte, error) { return nil, errMarshal }
func (s String) GobEncode() ([]byte, error)     { return nil, errMarshal }

// UnmarshalJSON takes a JSON string, or null for the empty text.
func (s *String) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errors.New("not a string") // json's own error could quote it
	}
	*s = New(text)
	return nil
}
