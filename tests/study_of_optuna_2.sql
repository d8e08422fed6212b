BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v2.6.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'search');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'space','"[{\"key\": \"train.learning_rate\", \"low\": 0.0001, \"high\": 1.0, \"log\": true, \"choices\": []}, {\"key\": \"method.alpha\", \"low\": 1.0, \"high\": 100.0, \"log\": false, \"choices\": []}]"');
INSERT INTO "study_user_attributes" VALUES(2,1,'seed','"0"');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'train.learning_rate',1.0789230823709133097e-04,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(2,1,'method.alpha',7.0904641886510034964e+01,'{"name": "UniformDistribution", "attributes": {"low": 1.0, "high": 100.0}}');
INSERT INTO "trial_params" VALUES(3,2,'train.learning_rate',4.57131546012137096601e-03,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(4,2,'method.alpha',5.94823504913146052777e+01,'{"name": "UniformDistribution", "attributes": {"low": 1.0, "high": 100.0}}');
INSERT INTO "trial_params" VALUES(5,3,'train.learning_rate',4.99533065290541384434e-03,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(6,3,'method.alpha',7.26960772591140198545e+01,'{"name": "UniformDistribution", "attributes": {"low": 1.0, "high": 100.0}}');
INSERT INTO "trial_params" VALUES(7,4,'train.learning_rate',4.10727972234108118509e-02,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(8,4,'method.alpha',9.8617757821551208508e+01,'{"name": "UniformDistribution", "attributes": {"low": 1.0, "high": 100.0}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,1,'fixed_params','{"train.learning_rate": 0.00010789230823709133, "method.alpha": 70.90464188651003}');
INSERT INTO "trial_system_attributes" VALUES(2,2,'fixed_params','{"train.learning_rate": 0.004571315460121371, "method.alpha": 59.482350491314605}');
INSERT INTO "trial_system_attributes" VALUES(3,3,'fixed_params','{"train.learning_rate": 0.004995330652905414, "method.alpha": 72.69607725911402}');
INSERT INTO "trial_system_attributes" VALUES(4,4,'fixed_params','{"train.learning_rate": 0.04107279722341081, "method.alpha": 98.61775782155121}');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'run','"a"');
INSERT INTO "trial_user_attributes" VALUES(2,2,'run','"b"');
INSERT INTO "trial_user_attributes" VALUES(3,3,'run','null');
INSERT INTO "trial_user_attributes" VALUES(4,3,'error','"E: x"');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,3.0);
INSERT INTO "trial_values" VALUES(2,2,0,-9e999);
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-30 02:59:04.445093','2026-11-30 02:59:04.679316');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-30 02:59:04.880414','2026-11-30 02:59:05.083278');
INSERT INTO "trials" VALUES(3,2,1,'FAIL','2026-11-30 02:59:05.283681','2026-11-30 02:59:05.603212');
INSERT INTO "trials" VALUES(4,3,1,'RUNNING','2026-11-30 02:59:05.783656',NULL);
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'2.10.1');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
COMMIT;
