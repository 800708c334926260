//go:build race

package servers

const underRace = true
