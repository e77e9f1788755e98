// A small app, written against the generated types alone: it asks for two risks and prints what it was told.
import createClient from "openapi-fetch";
import type { components, operations, paths } from "./openapi.js";

declare const process: { argv: string[] };

// Every answer has a type of its own: none is unknown, none an object without fields. A bad one's name is the error.
type Answer<O> = O extends { responses: { 200: { content: infer C } } } ? C[keyof C] : unknown;
type Untyped<T> = unknown extends T ? true : T extends Record<string, never> ? true : false;
type Bad = { [K in keyof operations]: Untyped<Answer<operations[K]>> extends false ? never : K }[keyof operations];
const everyAnswerIsTyped: [Bad] extends [never] ? true : Bad = true;

type Said = components["schemas"]["answer"]["predictions"][number];

const good: components["schemas"]["record_toy"] = {
  age_years: 61,
  sex: "female",
  cholesterol_mg_dl: { value: 6.2, unit: "mmol/L" },
  pain: null,
};
// @ts-expect-error: the contract has no such category
const bad: components["schemas"]["record_toy"] = { age_years: 61, sex: "unheard of" };

function told(said: Said): string {
  if ("error" in said) return `${said.error.code} ${said.error.field ?? "-"}`;
  const risk: number = said.risk;
  const band: string | null = said.band;
  const set: ("negative" | "positive")[] | undefined = said.set;
  const abstained: string | undefined = said.abstained;
  const why: { [feature: string]: number } = said.explanation?.contributions ?? {};
  return `${said.id} ${risk.toFixed(3)} ${band ?? abstained ?? "-"} ${set?.join(",")} ${said.missing.join(",")} ${Object.keys(why).length}`;
}

const client = createClient<paths>({ baseUrl: process.argv[2] ?? "" });
const one = { params: { path: { name: "toy" as const }, header: { "Idempotency-Key": "typescript" } } };

const answer = await client.POST("/v1/models/{name}/predict", { ...one, body: { records: [good, bad] } });
if (answer.error) throw new Error(answer.error.error.code);
console.log(answer.data.model, answer.data.version);
answer.data.predictions.map(told).forEach((line) => console.log(line));

const byColumns: operations["predict"]["requestBody"]["content"]["application/json"] = {
  columns: { age_years: [61, 40], sex: ["female", "male"] },
  explain: true,
};
const ready = await client.GET("/readyz");
const first: boolean | undefined = (ready.data ?? ready.error)?.models["toy"]?.ready;
const alive = await client.GET("/livez", { parseAs: "text" });
const nobody = await client.GET("/v1/predictions/{id}", { params: { path: { id: "0-0" } } });
console.log(first, alive.response.status, nobody.error?.error.code, everyAnswerIsTyped, "columns" in byColumns);
