package secret_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/oidc-device/kubectl-oidc_device/internal/secret"
	"github.com/oidc-device/kubectl-oidc_device/internal/secret/secrettest"
)

func TestString(t *testing.T) {
	s := secret.New("abc")
	if s.Reveal() != "abc" || s.Empty() || !s.Equal(secret.New("abc")) || s.Equal(secret.New("abd")) || s.Equal(secret.String{}) {
		t.Error("it is not what went in")
	}
	if zero := (secret.String{}); !zero.Empty() || zero.Reveal() != "" || !zero.Equal(secret.New("")) || !secret.New("").Empty() {
		t.Error("the zero value is not the empty text")
	}
	if got := fmt.Sprintf("%v %s %#v %x", s, s, s, s); got != "[secret] [secret] [secret] [secret]" {
		t.Errorf("it prints as %s", got)
	}
	if reflect.TypeFor[secret.String]().Comparable() {
		t.Error("it can be compared with ==")
	}
	var in struct{ A, B, C secret.String }
	if err := json.Unmarshal([]byte(`{"A":"x","B":null}`), &in); err != nil || in.A.Reveal() != "x" || !in.B.Empty() {
		t.Errorf("got %v, %v", in, err)
	}
	if err := json.Unmarshal([]byte(`{"A":["SENTINEL"]}`), &in); err == nil || err.Error() != "not a string" {
		t.Errorf("a list is taken for a text: %v", err)
	}
}

type holder struct {
	Shown  secret.String
	hidden *secret.String
	inner  struct{ s []secret.String }
}

// What walks the other packages finds what it is to find.
func TestWalk(t *testing.T) {
	_ = holder{}.hidden
	_ = holder{}.inner
	secrettest.Types(t, []reflect.Type{}, nil, nil)
	t.Run("holder", func(t *testing.T) {
		v := holder{Shown: secret.New("a")}
		if got := fmt.Sprintf("%+v", v); got != "{Shown:[secret] hidden:<nil> inner:{s:[]}}" {
			t.Errorf("it prints as %s", got)
		}
	})
}
